// Registers, changes and reads instances through the real Curator: what it is told on its standard input.
import java.io.*;
import java.util.*;
import org.apache.curator.framework.*;
import org.apache.curator.retry.*;
import org.apache.curator.x.discovery.*;

public class Reg {
    static ServiceInstance<Map> instance(String id, int port, String weight) throws Exception {
        Map<String, String> payload = new TreeMap<>();
        payload.put("weight", weight);
        payload.put("zone", "a");
        return ServiceInstance.<Map>builder().name("web").id(id).address("10.0.0.1").port(port)
            .payload(payload).build();
    }

    public static void main(String[] args) throws Exception {
        CuratorFramework client = CuratorFrameworkFactory.builder().connectString(args[0])
            .sessionTimeoutMs(4000).connectionTimeoutMs(4000).retryPolicy(new RetryForever(200)).build();
        client.start();
        ServiceDiscovery<Map> discovery = ServiceDiscoveryBuilder.builder(Map.class).client(client)
            .basePath(args[1]).build();
        discovery.start();
        System.out.println("ready");
        BufferedReader lines = new BufferedReader(new InputStreamReader(System.in));
        for (String line; (line = lines.readLine()) != null; ) {
            String[] words = line.split(" ");
            switch (words[0]) {
                case "add": discovery.registerService(instance(words[1], Integer.parseInt(words[2]), words[3])); break;
                case "update": discovery.updateService(instance(words[1], Integer.parseInt(words[2]), words[3])); break;
                case "remove": discovery.unregisterService(instance(words[1], Integer.parseInt(words[2]), "1")); break;
                case "list":
                    StringBuilder all = new StringBuilder("list");
                    for (ServiceInstance<Map> one : discovery.queryForInstances(words[1]))
                        all.append(" " + one.getId() + "=" + one.getAddress() + ":" + one.getPort() + "/"
                            + one.getPayload().get("zone") + "/" + one.isEnabled());
                    System.out.println(all);
                    continue;
            }
            System.out.println("done");
        }
    }
}
