# Eureka: the server that Spring Cloud publishes, put together by Maven from registry/tests/eureka (some 45
# seconds and 60 MB). Maven and a JDK are installed where they are missing. Sourced by scripts/registries.sh.
eureka_tools() {
    command -v mvn >/dev/null && command -v javac >/dev/null && return 0
    [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || return 1
    echo "set-up: installing Maven and a JDK"
    DEBIAN_FRONTEND=noninteractive apt-get -qq update >&2 || true
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends maven default-jdk-headless >/dev/null
}

install_eureka() {
    eureka_tools || return 1
    mkdir -p "$work/eureka"
    cp -r registry/tests/eureka "$work/eureka.made"
    (cd "$work/eureka.made" && { mvn -q -B -ntp package || mvn -q -B -ntp package; }) >&2 || return 1
    mv "$work/eureka.made/target/eureka.jar" "$work/eureka/eureka.jar" || return 1
    finish eureka
}
