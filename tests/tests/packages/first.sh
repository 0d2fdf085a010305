# First boot: install, make a mesh, two programs of one user told apart by their units, restarts, bypass.
. /test/functions.sh
. /test/network.sh
files >/test/files.before
rules >/test/rules.before
step "ordinary names resolve" soon 20 bash -c '[ "$(getent ahostsv4 plain.example | head -n 1 | cut -d " " -f 1)" = 192.0.2.7 ]'

# Installation.
must "install" apt-get install --yes --no-install-recommends /test/one.deb
must "the daemon runs" soon 20 systemctl is-active meshd.service
step "it is enabled" systemctl is-enabled meshd.service meshd-names.path
step "it runs idle" soon 20 phase idle
step "the package's files are as packaged" bash -c '[ -z "$(dpkg --verify meshd)" ]'
rules >/test/rules.idle
step "an idle daemon intercepts nothing" diff /test/rules.before /test/rules.idle
step "an idle daemon listens on its socket alone" bash -c '! ss -Htlnup | grep -E "meshd|:15[0-9]{3}|:7947|:4140"'
step "no names process yet" bash -c '! systemctl is-active --quiet meshd-names.service'
fact "capabilities" "$(grep CapEff /proc/$(pid)/status | cut -f 2)"
fact "user" "$(stat -c %U /proc/$(pid))"
fact "socket" "$(stat -c '%a %U %G' /run/meshd/meshd.sock)"
fact "state directory" "$(stat -c '%a %U %G' /var/lib/meshd)"
step "all defaults uncommented are a good configuration" bash -c \
    'mkdir -p /test/all && sed "s/^#\(\[\|[a-z_0-9]* = \)/\1/" /etc/meshd/meshd.toml >/test/all/meshd.toml && grep -q "^outbound_port" /test/all/meshd.toml && meshd --check --config /test/all/meshd.toml'
step "units are sound" bash -c '! systemd-analyze --man=no verify meshd.service meshd-names.service meshd-names.path meshd-resolved.service 2>&1 | grep meshd'
fact "exposure" "$(systemd-analyze security --no-pager meshd.service | tail -n 1 | grep -o '[0-9]\+\.[0-9]\+' | head -n 1)"
step "manual pages" bash -c 'zcat /usr/share/man/man1/meshctl-join.1.gz | grep -q token && zcat /usr/share/man/man8/meshd.8.gz | grep -q uninstall'
step "completion" bash -c '. /usr/share/bash-completion/completions/meshctl && type _meshctl'

# Who may do what.
useradd --no-create-home app
useradd --no-create-home reader --groups meshd
runuser -u app -- meshctl status >/dev/null 2>&1; fact "a stranger asks" "exit $?"
runuser -u reader -- meshctl status >/dev/null 2>&1; fact "a member of the group asks" "exit $?"
runuser -u reader -- env MESHCTL_HOME=/tmp/reader meshctl init >/dev/null 2>&1; fact "a member of the group makes a mesh" "exit $?"

# A mesh.
must "init" meshctl init --name lab --wait
step "systemd is told" soon 10 bash -c '[ "$(systemctl show --property=StatusText --value meshd.service)" = running ]'
fact "operator's key" "$(stat -c '%a %U' /root/.config/meshctl/operator.key)"
meshctl init >/dev/null 2>&1; fact "a second init" "exit $?"
fact "files of the state that others may read" "$(find /var/lib/meshd -type f -perm /077 | wc -l)"

# Two programs of one user: only their units tell them apart.
for name in web caller; do
    printf 'name = "%s"\nversion = "v1"\nunit = "%s.service"\n' $name $name >/etc/meshd/services.d/$name.toml
done
printf 'ports = [{ name = "http", port = 80, target = 8080, protocol = "http" }]\nhealth = { path = "/" }\n' >>/etc/meshd/services.d/web.toml
printf '[Service]\nUser=app\nExecStart=/usr/bin/python3 /test/web.py 8080 web\n[Install]\nWantedBy=multi-user.target\n' >/etc/systemd/system/web.service
printf '[Service]\nType=oneshot\nUser=app\nExecStart=/usr/bin/curl -sS --max-time 5 -o /tmp/answer http://web.mesh.internal/\n' >/etc/systemd/system/caller.service
step "reload" systemctl reload meshd.service
step "enrol" bash -c 'meshctl enrol web && meshctl enrol caller.service'
must "the service starts" systemctl enable --now web.service
step "names are answered" soon 20 systemctl is-active meshd-names.service

# Names by the opt-in unit; this kernel may have no dummy links, so the link is there already.
ip link add meshd0 type veth peer name meshd1 && ip link set meshd1 up && ip link set meshd0 up
step "names through systemd-resolved" systemctl enable --now meshd-resolved.service
step "a mesh name resolves" soon 20 getent ahostsv4 web.mesh.internal
step "its endpoint is healthy" soon 30 bash -c "meshctl -o json endpoints web | python3 -c 'import json,sys; rows=json.load(sys.stdin); assert rows and all(row[\"usable\"] for row in rows), rows'"
step "ordinary names resolve as before" bash -c '[ "$(getent ahostsv4 plain.example | head -n 1 | cut -d " " -f 1)" = 192.0.2.7 ]'
step "an unknown name is unknown as before" bash -c 'getent ahostsv4 nothing.example; [ $? = 2 ]'
step "mesh names are asked of the mesh alone" bash -c '! grep -q mesh.internal /test/asked'

# The call.
step "a call by name" soon 20 calls http://web.mesh.internal/
step "a call of a unit" systemctl start caller.service
step "the unit's answer" grep -q '"name": "web"' /tmp/answer
step "the caller is recognised by its unit" soon 10 bash -c 'meshctl -o json stat | grep -q "\"source\": \"[^\"]*caller"'
meshctl explain --from caller GET http://web/ >/test/explained 2>&1; fact "explain" "exit $?"
step "explain names the unit" grep -q caller.service /test/explained
cat /test/explained
step "the same without an enrolled caller" bash -c 'systemd-run --quiet --wait --uid=app curl -sS --max-time 5 -o /dev/null http://web.mesh.internal/'
step "check" bash -c 'meshctl check || true; meshctl -o json check | python3 -c "import json,sys; print([row for row in json.load(sys.stdin) if row[\"state\"] == \"error\"])" | grep -qx "\[\]"'

# From outside: the registered port is taken, the client's address kept; a port of sshd is left alone.
step "a registered port is taken" bash -c 'nft list table inet meshd | grep -A20 "set inbound" | grep -q 8080'
ip netns exec world curl -sS --max-time 5 http://10.88.0.2:8080/ >/test/outside 2>&1
fact "peer of a call from outside" "$(field peer </test/outside)"
mkdir -p /etc/ssh && echo "Port 2222" >/etc/ssh/sshd_config
printf 'name = "door"\nports = [{ port = 2222 }]\n' >/etc/meshd/services.d/door.toml
systemctl reload meshd.service
step "the service on sshd's port is there" soon 20 bash -c 'meshctl services door'
step "a port of sshd is never taken" bash -c 'sleep 1; ! nft list table inet meshd | grep -A20 "set inbound" | grep -q 2222'
rm -r /etc/ssh /etc/meshd/services.d/door.toml
systemctl reload meshd.service

# meshctl against the real daemon; the whole of it is tested among three hosts elsewhere.
best=999999
for _ in 1 2 3 4 5; do
    begin=$(date +%s%N); meshctl >/dev/null; took=$((($(date +%s%N) - begin) / 1000000))
    [ $took -lt $best ] && best=$took
done
fact "alone, milliseconds" $best
step "curl as a service" bash -c 'meshctl curl --as caller http://web/ | tee /test/curled | grep -q "HTTP 200"'
step "curl as a stranger to this host" bash -c '! meshctl curl --as nobody http://web/'
step "split" bash -c 'meshctl route split web v1=100 --wait --reason "a test" | grep -q "kind: HTTPRoute"'
step "the split's version is a service" soon 10 meshctl services web-v1
step "a call through the split" soon 10 calls http://web.mesh.internal/
meshctl route split web v1=100 >/dev/null 2>&1; fact "the same split again" "exit $?"
meshctl diff -f <(meshctl get HTTPRoute web-split -o yaml) >/dev/null 2>&1; fact "no difference to itself" "exit $?"
step "history" bash -c 'meshctl history HTTPRoute/web-split | grep -q "a test"'
meshctl -o yaml get HTTPRoute web-split >/test/old.yaml
step "a change" bash -c 'meshctl route split web v1=90 web=10 --wait'
meshctl apply -f /test/old.yaml >/test/stale 2>&1; fact "an edit on a stale base" "exit $?"
step "it shows the difference" grep -q '^[-+].*weight: 90' /test/stale
step "rollback" bash -c 'meshctl rollback HTTPRoute/web-split --wait && meshctl -o yaml get HTTPRoute web-split | grep -q "weight: 100"'
step "delete" bash -c 'meshctl delete HTTPRoute web-split --wait && meshctl delete svc/web-v1'
meshctl get HTTPRoute web-split >/dev/null 2>&1; fact "what is deleted" "exit $?"
printf 'apiVersion: v1\nkind: Service\nmetadata: {name: other}\nspec: {ports: [{port: 80}]}\n' >/test/other.yaml
step "an edit of nobody" bash -c 'MESHCTL_HOME=/test/nobody meshctl apply -f /test/other.yaml; [ $? = 6 ]'
step "backup" bash -c 'meshctl backup --file /test/backup && [ "$(stat -c %a /test/backup)" = 600 ]'
step "a token" bash -c 'meshctl token create --ttl 5m 2>/dev/null | grep -q "^meshd1\.[A-Za-z0-9_-]*$"'
step "what never failed is not explained" bash -c '! meshctl why 00112233445566778899aabbccddeeff'
meshctl; meshctl members; meshctl services; meshctl endpoints; meshctl stat; meshctl operator list; meshctl history; meshctl check; cat /test/curled /test/stale

rules >/test/rules.meshed
step "only our table and our routes came" bash -c '[ "$(nft list tables | grep -vc " meshd\| meshd_fallback")" = 0 ]'

# Restart, reload, death.
step "restart" systemctl restart meshd.service
step "a call after the restart" soon 20 calls http://web.mesh.internal/
# For a second, because the first plan after a start does not know yet what is healthy here.
step "the fallback knows the endpoint" soon 20 bash -c 'for _ in 1 2 3 4 5; do nft list table inet meshd_fallback | grep -q "10.88.0.2" || exit 1; sleep 0.2; done'
# Time enough to see what goes on without it.
mkdir -p /run/systemd/system/meshd.service.d && printf '[Service]\nRestartSec=4\n' >/run/systemd/system/meshd.service.d/slow.conf && systemctl daemon-reload
old=$(pid)
systemctl kill --signal=KILL --kill-whom=main meshd.service
step "dead: its own table goes with it" soon 3 bash -c '! nft list table inet meshd'
step "dead: a call goes on directly" calls http://web.mesh.internal/
fact "dead: the daemon's state after the call" "$(systemctl is-active meshd.service)"
step "the daemon is back by itself" soon 20 bash -c "[ \"\$(systemctl show --property=MainPID --value meshd.service)\" != $old ] && systemctl is-active meshd.service"
step "it serves again" soon 20 calls http://web.mesh.internal/
step "a service restarts into the mesh" bash -c 'systemctl restart web.service && sleep 0.5'
step "a call to the restarted service" soon 20 calls http://web.mesh.internal/
printf 'nonsense = 1\n' >/etc/meshd/conf.d/bad.toml
meshd --check >/test/bad 2>&1; fact "a bad configuration" "exit $?"
step "the fault has file, line and key" grep -q 'bad.toml:1.*nonsense' /test/bad
step "a reload with faults fails" bash -c '! systemctl reload meshd.service'
step "the daemon goes on" systemctl is-active meshd.service
rm /etc/meshd/conf.d/bad.toml
step "a reload without faults" systemctl reload meshd.service

# Bypass with the daemon dead; it is to survive the reboot.
step "stop" systemctl stop meshd.service
step "stopped: its own table is gone" bash -c '! nft list table inet meshd'
step "bypass without the daemon" meshctl bypass
# The link for systemd-resolved is no rule of ours.
rules | grep -v 'dev meshd0' >/test/rules.bypassed
step "bypass leaves no rule" diff /test/rules.before /test/rules.bypassed
