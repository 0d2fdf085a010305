# Sourced: finds the programs that the scripts use. Sets PATH (and LD_LIBRARY_PATH for tools that an
# ordinary user unpacked); changes nothing else.
MESH_TOOLS="${XDG_CACHE_HOME:-${HOME:-/tmp}/.cache}/meshd-peers"
PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin"
[ -d "${HOME:-/nowhere}/.cargo/bin" ] && PATH="$HOME/.cargo/bin:$PATH"
if [ -d "$MESH_TOOLS/root" ]; then
    PATH="$PATH:$MESH_TOOLS/root/usr/sbin:$MESH_TOOLS/root/sbin:$MESH_TOOLS/root/usr/bin:$MESH_TOOLS/root/bin"
    for folder in "$MESH_TOOLS/root/usr/lib/$(uname -m)-linux-gnu" "$MESH_TOOLS/root/lib/$(uname -m)-linux-gnu"; do
        [ -d "$folder" ] && LD_LIBRARY_PATH="${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}$folder"
    done
    export LD_LIBRARY_PATH
fi
if [ -e "$MESH_TOOLS/root/usr/lib/nginx/modules/ngx_stream_module.so" ]; then
    export NGINX_STREAM="$MESH_TOOLS/root/usr/lib/nginx/modules/ngx_stream_module.so"
fi
if [ -d "$MESH_TOOLS/root/usr/include/google/protobuf" ] && ! [ -d /usr/include/google/protobuf ]; then
    export PROTOC_INCLUDE="$MESH_TOOLS/root/usr/include"
fi
for folder in "$MESH_TOOLS"/envoy-*/bin; do
    [ -d "$folder" ] && PATH="$PATH:$folder"
done
export PATH MESH_TOOLS
