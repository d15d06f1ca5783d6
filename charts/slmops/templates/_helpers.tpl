{{- /* What the schema cannot say in words that tell a user what to write. */ -}}
{{- define "slmops.check" -}}
{{- $bad := list }}
{{- range $name, $image := .Values.images }}
  {{- if not (regexMatch "^[a-z0-9][a-z0-9._:/-]*(@sha256:[0-9a-f]{64})?$" $image) }}
    {{- $bad = append $bad (printf "images.%s is %q" $name $image) }}
  {{- end }}
{{- end }}
{{- if $bad }}
  {{- fail (printf "%s: expected an image, best by digest, for example registry.example/slmops/operator@sha256:…" (join ", " $bad)) }}
{{- end }}
{{- range .Values.watchNamespaces }}
  {{- if not (regexMatch "^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$" .) }}
    {{- fail (printf "watchNamespaces holds %q: expected names of namespaces" .) }}
  {{- end }}
{{- end }}
{{- range .Values.plainHttpRegistries }}
  {{- if not (regexMatch "^[a-z0-9.-]+(:[0-9]{1,5})?$" .) }}
    {{- fail (printf "plainHttpRegistries holds %q: expected host or host:port, without http:// and without a path" .) }}
  {{- end }}
{{- end }}
{{- $four := `((25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])[.]){3}(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])/(3[0-2]|[12]?[0-9])` }}
{{- $six := `(([0-9a-fA-F]{1,4}:){7}[0-9a-fA-F]{1,4}|([0-9a-fA-F]{1,4}:){1,7}:|([0-9a-fA-F]{1,4}:){1,6}(:[0-9a-fA-F]{1,4}){1,1}|([0-9a-fA-F]{1,4}:){1,5}(:[0-9a-fA-F]{1,4}){1,2}|([0-9a-fA-F]{1,4}:){1,4}(:[0-9a-fA-F]{1,4}){1,3}|([0-9a-fA-F]{1,4}:){1,3}(:[0-9a-fA-F]{1,4}){1,4}|([0-9a-fA-F]{1,4}:){1,2}(:[0-9a-fA-F]{1,4}){1,5}|([0-9a-fA-F]{1,4}:){1,1}(:[0-9a-fA-F]{1,4}){1,6}|:((:[0-9a-fA-F]{1,4}){1,7}|:))/(12[0-8]|1[01][0-9]|[1-9]?[0-9])` }}
{{- range .Values.egress.internalRanges }}
  {{- if not (regexMatch (printf "^(%s|%s)$" $four $six) .) }}
    {{- fail (printf "egress.internalRanges holds %q: expected ranges of addresses, for example 10.0.0.0/8 or fc00::/7" .) }}
  {{- end }}
{{- end }}
{{- if not (regexMatch "^[0-9]+(ms|s|m|h)$" .Values.podMonitor.interval) }}
  {{- fail (printf "podMonitor.interval is %q: expected a time with its unit, for example 30s" .Values.podMonitor.interval) }}
{{- end }}
{{- end }}
{{- define "slmops.labels" -}}
app.kubernetes.io/name: slmops
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}
{{- define "slmops.selector" -}}
app.kubernetes.io/name: slmops
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}
