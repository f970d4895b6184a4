{{- define "pgwitness.image" -}}
{{- $root := index . 0 -}}
{{- with $root.Values.image.registry }}{{ trimSuffix "/" . }}/{{ end -}}
pgwitness-{{ index . 1 }}
{{- with index $root.Values.image.digests (index . 1) }}@{{ . }}{{ else }}:{{ default $root.Chart.AppVersion $root.Values.image.tag }}{{ end }}
{{- end }}
{{- define "pgwitness.url" -}}
{{- if not (or .Values.collector.enabled .Values.collector.url) }}{{ fail "collector.enabled is false: collector.url must say where agents deliver" }}{{ end -}}
{{ default "https://pgwitness-collector.$(NAMESPACE).svc:7433" .Values.collector.url }}
{{- end }}
{{- define "pgwitness.env" -}}
- name: NODE
  valueFrom: {fieldRef: {fieldPath: spec.nodeName}}
- name: NAMESPACE
  valueFrom: {fieldRef: {fieldPath: metadata.namespace}}
- name: PGWITNESS_AGENT__AGENT__HOST
  value: $(NODE)
- name: PGWITNESS_AGENT__STATE_DIR
  value: /var/lib/pgwitness/agent
- name: PGWITNESS_AGENT__CONTROL__SOCKET
  value: /run/pgwitness-agent/control.sock
- name: PGWITNESS_AGENT__METRICS__LISTEN
  value: {{ printf "%s:7481" .Values.listen | toJson }}
- name: PGWITNESS_AGENT__METRICS__INSECURE
  value: "true"
# Of all nodes the same, so that the limit below is.
- name: PGWITNESS_AGENT__TAP__RING_MIB
  value: {{ .Values.agent.ringMiB | int | quote }}
{{- end }}
{{- /* A ConfigMap takes text alone. Numbers of a file of values are floating: as JSON they are written as they were; lists are the programs' own form. */ -}}
{{- define "pgwitness.settings" -}}
{{- range $key, $value := . }}
{{ $key }}: {{ if kindIs "string" $value }}{{ toJson $value }}{{ else }}{{ toRawJson $value | toJson }}{{ end }}
{{- end }}
{{- end }}
