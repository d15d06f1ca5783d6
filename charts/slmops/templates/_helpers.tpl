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
