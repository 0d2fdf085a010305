# ZooKeeper 3.8 and Curator 5.4 of bookworm, with the libraries that they name, and ZooKeeper 3.4 of bullseye: the
# last that knows no watch of everything below a path. Needs a JDK: the test of Curator is a program of its own.
# Sourced by scripts/registries.sh.
needs_zookeeper() { java_here; }

install_zookeeper() {
    from_debian zookeeper bookworm zookeeper libzookeeper-java libcurator-client-java libcurator-framework-java \
        libcurator-discovery-java libjackson2-annotations-java libjackson2-core-java libjackson2-databind-java \
        libslf4j-java libnetty-java libdropwizard-metrics-java libsnappy-java libsnappy-jni libguava-java || return 1
    [ -e "$work/zookeeper/usr/share/java/curator-x-discovery.jar" ] || return 1
    from_debian zookeeper-old bullseye libzookeeper-java liblog4j1.2-java libslf4j-java || return 1
    mkdir "$work/zookeeper/old"
    cp -L "$work"/zookeeper-old/usr/share/java/{zookeeper,log4j-1.2,slf4j-api,slf4j-nop}.jar "$work/zookeeper/old" || return 1
    finish zookeeper
}
