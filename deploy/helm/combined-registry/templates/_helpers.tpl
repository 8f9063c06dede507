{{/* The names and labels of the objects, and what several of them must agree on. */}}

{{- define "router.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{/* `combined-registry`, or with another release name `combined-registry-RELEASE`: the alerts go by this beginning. */}}
{{- define "router.job" -}}
{{- ternary .Chart.Name (printf "%s-%s" .Chart.Name .Release.Name) (eq .Release.Name .Chart.Name) -}}
{{- end -}}

{{- define "router.fullname" -}}
{{- $name := include "router.name" . -}}
{{- $both := ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) -}}
{{- default $both .Values.fullnameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- define "router.selector" -}}
app.kubernetes.io/name: {{ include "router.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "router.metadata" -}}
name: {{ include "router.fullname" . }}
namespace: {{ .Release.Namespace }}
labels:
  {{- include "router.selector" . | nindent 2 }}
  app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
  app.kubernetes.io/managed-by: {{ .Release.Service }}
  helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{- end -}}

{{/* Says `https` if the router itself speaks TLS. */}}
{{- define "router.scheme" -}}
{{- ternary "https" "http" (hasKey .Values.secrets "TLS_CERT_FILE") -}}
{{- end -}}

{{/* A probe of the router itself. */}}
{{- define "router.probe" -}}
httpGet:
  path: /livez
  port: http
  {{- if eq (include "router.scheme" .) "https" }}
  scheme: HTTPS
  {{- end }}
{{- end -}}

{{- define "router.image" -}}
{{- $repository := .Values.image.repository -}}
{{- if contains "OWNER" $repository -}}
{{- fail "\nimage.repository: no release has been published yet. Build the image, push it to where the nodes pull from without this router, and name that." -}}
{{- end -}}
{{- with .Values.image.digest -}}
{{ $repository }}@{{ . }}
{{- else -}}
{{ $repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end -}}

{{/* Fails until somebody has said who may push. */}}
{{- define "router.auth" -}}
{{- if hasKey .Values.secrets "HTPASSWD_FILE" -}}
{{- if .Values.auth -}}
{{- fail (printf "\nauth: %s and secrets.HTPASSWD_FILE exclude each other." .Values.auth) -}}
{{- end -}}
{{- else if not .Values.auth -}}
{{- fail "\nWho may push? Give secrets.HTPASSWD_FILE (users of a file), `auth: hosted` (whom hosted lets in), or `auth: open` (everybody who reaches the router)." -}}
{{- end -}}
{{- end -}}
