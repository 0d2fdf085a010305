# Consul 1.8.7: bullseye is the last release of Debian that has it. Sourced by scripts/registries.sh.
install_consul() {
    from_debian consul bullseye consul || return 1
    [ -x "$work/consul/usr/bin/consul" ] || return 1
    finish consul
}
