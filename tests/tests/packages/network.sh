# A network for the machine: eth0, and on its other end a namespace that is the rest of the world.
ip netns add world
ip link add eth0 type veth peer name out netns world
ip addr add 10.88.0.2/24 dev eth0
ip link set eth0 up
ip route add default via 10.88.0.1
ip netns exec world ip addr add 10.88.0.1/24 dev out
ip netns exec world ip link set out up
ip netns exec world ip link set lo up
systemd-run --quiet --unit=world-dns --property=NetworkNamespacePath=/run/netns/world python3 /test/dns.py
resolvectl dns eth0 10.88.0.1
resolvectl default-route eth0 yes
