# The API server of Kubernetes, built from its Go module: about five minutes on two cores and 2.3 GB of disk that
# are given back; 98 MB stay. It keeps its state in an etcd, which is another registry of this folder.
. scripts/go-tool.sh
KUBERNETES_MINOR=34.4

install_kubernetes() {
    local go name=kubernetes replaced
    go="$(go_tool)" || { left_out "$name" "there is no Go tool"; return 0; }
    mkdir -p "$work/$name" "$work/kubernetes.go"
    # Caches of its own: what only this build needs is not left behind.
    local -x GOMODCACHE="$work/kubernetes.go/modules" GOCACHE="$work/kubernetes.go/cache"
    (
        cd "$work/kubernetes.go"
        # The module's own go.mod points at folders of its repository; the same code is published one by one.
        replaced="$("$go" mod download -json "k8s.io/kubernetes@v1.$KUBERNETES_MINOR" | sed -n 's/.*"GoMod": "\(.*\)",/\1/p')"
        {
            printf 'module apiserver\n\ngo 1.24.0\n\nrequire k8s.io/kubernetes v1.%s\n' "$KUBERNETES_MINOR"
            printf 'require k8s.io/component-base v0.%s\n' "$KUBERNETES_MINOR"
            sed -n "s|^\t\(k8s.io/[a-z-]*\) => ./staging.*|replace \1 => \1 v0.$KUBERNETES_MINOR|p" "$replaced"
        } >go.mod
        cat >main.go <<'EOF'
package main

import (
	"os"

	"k8s.io/component-base/cli"
	"k8s.io/kubernetes/cmd/kube-apiserver/app"
)

func main() { os.Exit(cli.Run(app.NewAPIServerCommand())) }
EOF
        # No debug information is made: it would take time and disk.
        CGO_ENABLED=0 GOFLAGS=-mod=mod GOTOOLCHAIN=auto "$go" build -trimpath -gcflags=all=-dwarf=false \
            -ldflags='-s -w' -o "$work/$name/kube-apiserver" . 2>"$work/kubernetes.log"
    ) || { tail -5 "$work/kubernetes.log" >&2; chmod -R u+w "$work/kubernetes.go"; return 1; }
    chmod -R u+w "$work/kubernetes.go"
    rm -rf "$work/kubernetes.go"
    finish "$name"
}
