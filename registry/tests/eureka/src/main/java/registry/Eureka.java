package registry;

import jakarta.servlet.Filter;
import jakarta.servlet.http.HttpServletRequest;
import jakarta.servlet.http.HttpServletResponse;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Base64;
import org.apache.catalina.connector.Connector;
import org.springframework.beans.factory.annotation.Value;
import org.springframework.boot.SpringApplication;
import org.springframework.boot.autoconfigure.SpringBootApplication;
import org.springframework.boot.web.embedded.tomcat.TomcatServletWebServerFactory;
import org.springframework.boot.web.servlet.FilterRegistrationBean;
import org.springframework.boot.web.server.WebServerFactoryCustomizer;
import org.springframework.cloud.netflix.eureka.server.EnableEurekaServer;
import org.springframework.context.annotation.Bean;
import org.springframework.core.Ordered;

/** The registry as its makers publish it; everything else is given on the command line. */
@SpringBootApplication
@EnableEurekaServer
public class Eureka {
    public static void main(String[] arguments) {
        SpringApplication.run(Eureka.class, arguments);
    }

    /** Eureka has no passwords of its own: with --password.file a filter asks for the one in it, as it is now. */
    @Bean
    FilterRegistrationBean<Filter> password(@Value("${password.file:}") String file) {
        Filter filter = (request, response, chain) -> {
            if (!file.isEmpty()) {
                byte[] pair = ("mesh:" + Files.readString(Path.of(file)).strip()).getBytes();
                String wanted = "Basic " + Base64.getEncoder().encodeToString(pair);
                if (!wanted.equals(((HttpServletRequest) request).getHeader("Authorization"))) {
                    ((HttpServletResponse) response).setStatus(401);
                    return;
                }
            }
            chain.doFilter(request, response);
        };
        FilterRegistrationBean<Filter> first = new FilterRegistrationBean<>(filter);
        // Eureka answers in a filter too.
        first.setOrder(Ordered.HIGHEST_PRECEDENCE);
        return first;
    }

    /** With --plain.port it listens there in the clear, beside a port with TLS. */
    @Bean
    WebServerFactoryCustomizer<TomcatServletWebServerFactory> plain(@Value("${plain.port:0}") int port) {
        return factory -> {
            if (port > 0) {
                Connector connector = new Connector();
                connector.setPort(port);
                connector.setProperty("address", "127.0.0.1");
                factory.addAdditionalTomcatConnectors(connector);
            }
        };
    }
}
