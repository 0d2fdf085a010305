# Second boot: bypass is still on; upgrade, remove, purge.
. /test/functions.sh
. /test/network.sh
ip link add meshd0 type veth peer name meshd1 && ip link set meshd1 up && ip link set meshd0 up
systemctl restart meshd-resolved.service
must "the daemon runs after the reboot" soon 20 systemctl is-active meshd.service
step "bypass survived the reboot" soon 10 phase bypassed
step "bypassed: no table" bash -c '[ -z "$(nft list tables)" ]'
must "unbypass" meshctl unbypass --wait
step "the service is there" soon 20 systemctl is-active web.service
step "a call after the reboot" soon 20 calls http://web.mesh.internal/
fact "mesh before" "$(json status | field mesh.id)"
fact "host before" "$(json status | field mesh.host)"

# An upgrade: settings, state and identity stay.
printf '\n# mine\ndrain_timeout = "5s"\n' | cat - /etc/meshd/meshd.toml >/test/edited && cp /test/edited /etc/meshd/meshd.toml
old=$(pid)
must "upgrade" apt-get install --yes --no-install-recommends /test/two.deb
fact "version" "$(dpkg-query -W -f '${Version}' meshd)"
step "the new program runs" soon 30 bash -c "[ \"\$(systemctl show --property=MainPID --value meshd.service)\" != $old ] && systemctl is-active meshd.service"
step "my settings stayed" diff /test/edited /etc/meshd/meshd.toml
step "it is meshed again" soon 20 phase running
fact "mesh after" "$(json status | field mesh.id)"
step "a call after the upgrade" soon 20 calls http://web.mesh.internal/
systemctl disable --quiet meshd.service
step "an upgrade keeps what is disabled disabled" bash -c 'apt-get install --yes --reinstall /test/two.deb && ! systemctl is-enabled meshd.service'
systemctl enable --quiet meshd.service

# Remove keeps the state, takes everything else away.
must "remove" apt-get remove --yes meshd
step "removed: no rule is left" diff_rules
step "removed: the state is kept" test -d /var/lib/meshd
step "ordinary names resolve after removal" soon 20 bash -c '[ "$(getent ahostsv4 plain.example | head -n 1 | cut -d " " -f 1)" = 192.0.2.7 ]'
step "the service starts without the mesh" systemctl restart web.service
step "install again" apt-get install --yes --no-install-recommends /test/two.deb
step "it is meshed at once" soon 30 phase running
fact "host after removal" "$(json status | field mesh.host)"
ip link add meshd0 type veth peer name meshd1 && ip link set meshd1 up && ip link set meshd0 up
step "a call after the second installation" soon 20 bash -c 'systemctl start meshd-resolved.service; curl -sS --max-time 5 http://web.mesh.internal/'

# Purge.
must "purge" apt-get purge --yes meshd
systemctl disable --quiet --now web.service
rm -f /etc/systemd/system/web.service /etc/systemd/system/caller.service
userdel app; userdel reader; rm -rf /tmp/reader
systemctl daemon-reload
step "purged: no rule is left" diff_rules
files >/test/files.after
step "purged: no file is left" diff /test/files.before /test/files.after
step "purged: no user, no group" bash -c '! getent passwd meshd && ! getent group meshd'
step "purged: no process" bash -c '! pgrep -x meshd'
step "purged: no unit" bash -c '! systemctl list-unit-files --no-legend | grep meshd'
step "purged: nothing in systemd's state" bash -c '[ -z "$(find /var/lib/systemd /run/systemd -name "*meshd*" -not -name "*.journal" -not -path "*/inaccessible/*" 2>/dev/null)" ]'
