# Eureka: the server that Spring Cloud publishes, put together by Maven from registry/tests/eureka (some 45
# seconds and 60 MB). Needs a JDK, and Maven to be made. Sourced by scripts/registries.sh.
needs_eureka() { java_here; }

install_eureka() {
    command -v mvn >/dev/null || apt_install maven || return 1
    mkdir -p "$work/eureka"
    cp -r registry/tests/eureka "$work/eureka.made"
    (cd "$work/eureka.made" && { mvn -q -B -ntp package || mvn -q -B -ntp package; }) >&2 || return 1
    mv "$work/eureka.made/target/eureka.jar" "$work/eureka/eureka.jar" || return 1
    finish eureka
}
