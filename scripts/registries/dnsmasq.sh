# dnsmasq with its library files. Sourced by scripts/registries.sh.
install_dnsmasq() {
    from_debian dnsmasq bookworm dnsmasq-base libnetfilter-conntrack3 libnfnetlink0 libnftables1 libnftnl11 \
        libjansson4 libidn2-0 libunistring2 libnettle8 libhogweed6 liblua5.3-0 libdbus-1-3 || return 1
    [ -x "$work/dnsmasq/usr/sbin/dnsmasq" ] || return 1
    finish dnsmasq
}
