# shellcheck shell=bash
# The cluster's CA, its certificates and the kubeconfigs made of them. Sourced after lib.sh by serve-apiserver and
# serve-controller-manager, which may start at the same time.

# pki DIR (absolute): makes DIR/pki when it is missing, as a whole or not at all.
pki() (
  umask 077
  exec 8>"$1/pki.lock"
  flock 8
  [ ! -d "$1/pki" ] || exit 0
  rm -rf "$1/pki.new"
  mkdir "$1/pki.new"
  cd "$1/pki.new" || exit
  openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -quiet -out service-accounts.key
  certificate ca /CN=sentinel-parts 'basicConstraints=critical,CA:TRUE
keyUsage=critical,keyCertSign,cRLSign,digitalSignature'
  certificate apiserver /CN=kube-apiserver 'extendedKeyUsage=serverAuth
subjectAltName=IP:127.0.0.1,IP:10.96.0.1,DNS:localhost,DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc'
  certificate admin /O=system:masters/CN=admin extendedKeyUsage=clientAuth
  certificate controller-manager /CN=system:kube-controller-manager extendedKeyUsage=clientAuth
  # Of another CA than users: a front proxy may name any user as its client.
  certificate front-proxy-ca /CN=sentinel-parts-front-proxy 'basicConstraints=critical,CA:TRUE
keyUsage=critical,keyCertSign,cRLSign,digitalSignature' front-proxy-ca
  certificate front-proxy-client /CN=front-proxy-client extendedKeyUsage=clientAuth front-proxy-ca
  mv "$1/pki.new" "$1/pki"
)

# certificate NAME SUBJECT EXTENSIONS [SIGNER]: NAME.key and NAME.crt in the folder we are in, signed by SIGNER, or by ca; each
# of these signs itself.
certificate() {
  local by=${4:-ca}
  local signer=(-CA "$by.crt" -CAkey "$by.key")
  [ "$1" != "$by" ] || signer=(-key "$by.key")
  openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$1.key"
  openssl req -new -key "$1.key" -subj "$2" |
    openssl x509 -req "${signer[@]}" -days 3650 -set_serial "0x$(openssl rand -hex 8)" -extfile <(printf '%s\n' "$3") -out "$1.crt" 2>/dev/null
}

# client_certificate DIR NAME SUBJECT: DIR/pki/NAME.crt and its key, when missing.
client_certificate() (
  umask 077
  exec 8>"$1/pki.lock"
  flock 8
  cd "$1/pki" || exit
  [ -f "$2.crt" ] || certificate "$2" "$3" extendedKeyUsage=clientAuth
)

# kubeconfig DIR NAME PORT [ADDRESS]: DIR/NAME.kubeconfig, with the certificate of that name, for the API server on that
# port; ADDRESS is where it is reached from a node.
kubeconfig() (
  umask 077
  cat >"$1/$2.kubeconfig.new" <<END
apiVersion: v1
kind: Config
current-context: parts
contexts: [{name: parts, context: {cluster: parts, user: $2}}]
clusters:
- name: parts
  cluster: {server: "https://${4:-127.0.0.1}:$3", ${4:+tls-server-name: localhost, }certificate-authority-data: $(base64 -w 0 "$1/pki/ca.crt")}
users:
- name: $2
  user: {client-certificate-data: $(base64 -w 0 "$1/pki/$2.crt"), client-key-data: $(base64 -w 0 "$1/pki/$2.key")}
END
  mv "$1/$2.kubeconfig.new" "$1/$2.kubeconfig"
)
