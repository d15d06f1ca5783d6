module slmops.dev/cluster/pause

go 1.26.8
