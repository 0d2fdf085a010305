# etcd 3.5 and its client, from Debian trixie; the programs are static, so they run on older ones. Sourced by
# scripts/registries.sh.
install_etcd() {
    from_debian etcd trixie etcd-server etcd-client || from_debian etcd bookworm etcd-server etcd-client || return 1
    [ -x "$work/etcd/usr/bin/etcd" ] && [ -x "$work/etcd/usr/bin/etcdctl" ] || return 1
    finish etcd
}
