{{- define "pgwitness.image" -}}
{{- $root := index . 0 -}}
{{- with $root.Values.image.registry }}{{ trimSuffix "/" . }}/{{ end -}}
{{ index . 1 }}:{{ default $root.Chart.AppVersion $root.Values.image.tag }}
{{- end }}
{{- define "pgwitness.url" -}}
{{ default "https://pgwitness-collector.$(NAMESPACE).svc:7433" .Values.collector.url }}
{{- end }}
