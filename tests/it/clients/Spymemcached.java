// spymemcached, the client of most programs in Java. It is the only one that keeps many requests in flight by itself.
// The script uses every command, a ketama ring of servers, and a restart. The arguments are three ports and the
// protocol: text or binary.

import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.net.InetSocketAddress;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.Random;
import java.util.concurrent.Future;
import java.util.logging.Level;
import java.util.logging.Logger;
import net.spy.memcached.CASMutation;
import net.spy.memcached.CASMutator;
import net.spy.memcached.CASResponse;
import net.spy.memcached.CASValue;
import net.spy.memcached.ConnectionFactoryBuilder;
import net.spy.memcached.DefaultHashAlgorithm;
import net.spy.memcached.FailureMode;
import net.spy.memcached.MemcachedClient;
import net.spy.memcached.ConnectionFactoryBuilder.Locator;
import net.spy.memcached.ConnectionFactoryBuilder.Protocol;
import net.spy.memcached.transcoders.SerializingTranscoder;

public class Spymemcached {
    static boolean binary;

    static void same(Object expected, Object got, String what) {
        if (!Objects.equals(expected, got)) {
            System.err.printf("%s: expected %.300s, got %.300s%n", what, expected, got);
            System.exit(1);
        }
    }

    static MemcachedClient connect(List<String> ports) throws Exception {
        List<InetSocketAddress> servers = new ArrayList<>();
        for (String port : ports) {
            servers.add(new InetSocketAddress("127.0.0.1", Integer.parseInt(port)));
        }
        return new MemcachedClient(
            new ConnectionFactoryBuilder()
                .setProtocol(binary ? Protocol.BINARY : Protocol.TEXT)
                .setLocatorType(Locator.CONSISTENT)
                .setHashAlg(DefaultHashAlgorithm.KETAMA_HASH)
                .setFailureMode(FailureMode.Retry)
                .setMaxReconnectDelay(1)
                .setOpTimeout(15_000)
                .build(),
            servers);
    }

    static void values(MemcachedClient client) throws Exception {
        same(null, client.get("nothing"), "a miss");
        for (Object value : Arrays.asList("text", "", "ünïcode", 42, -7L, 2.5, true, 'c', new ArrayList<>(List.of(1, "two")))) {
            same(true, client.set("typed", 100, value).get(), "set");
            same(value, client.get("typed"), "a value with its type");
        }
        byte[] bytes = "a\r\nEND\r\n\0\u00ff".getBytes("ISO-8859-1");
        client.set("bytes", 100, bytes).get();
        same(true, Arrays.equals(bytes, (byte[]) client.get("bytes")), "bytes");
        String text = "compress me ".repeat(10_000);
        client.set("long", 100, text).get();
        same(text, client.get("long"), "a compressed value");
        byte[] blob = new byte[900_000];
        new Random(1).nextBytes(blob);
        same(true, client.set("blob", 100, blob).get(), "set of a large value");
        same(true, Arrays.equals(blob, (byte[]) client.get("blob")), "a large value");
        // The client's default limit is not above the servers' limit.
        byte[] huge = new byte[3_000_000];
        new Random(2).nextBytes(huge);
        SerializingTranscoder larger = new SerializingTranscoder(10_000_000);
        larger.setCompressionThreshold(100_000_000);
        boolean stored;
        try {
            stored = client.set("huge", 100, huge, larger).get();
        } catch (Exception error) {
            same(true, error.toString().contains("too large"), error.toString());
            stored = false;
        }
        same(false, stored, "set of a value too large");
        same(null, client.get("huge"), "what was too large");
        same("text", client.set("typed", 100, "text").get() ? client.get("typed") : null, "get after a refusal");
    }

    static void stores(MemcachedClient client) throws Exception {
        client.set("key", 100, "value").get();
        same(false, client.add("key", 100, "x").get(), "add of what is there");
        same(true, client.add("new", 100, "b").get(), "add");
        same(true, client.append("new", "c").get() && client.prepend("new", "a").get(), "append and prepend");
        same("abc", client.get("new"), "what was joined");
        same(false, client.append("nothing", "x").get(), "append to nothing");
        same(true, client.replace("new", 100, "x").get(), "replace");
        same(false, client.replace("nothing", 100, "x").get(), "replace of nothing");
        same(true, client.delete("new").get(), "delete");
        same(false, client.delete("new").get(), "delete of nothing");

        CASValue<Object> seen = client.gets("key");
        same("value", seen.getValue(), "gets");
        same(CASResponse.OK, client.cas("key", seen.getCas(), "mine"), "cas");
        same(CASResponse.EXISTS, client.cas("key", seen.getCas(), "late"), "cas, late");
        same("mine", client.get("key"), "what cas wrote");
        same(CASResponse.NOT_FOUND, client.cas("nothing", seen.getCas(), "x"), "cas of nothing");
        same(null, client.gets("nothing"), "gets of nothing");
        same(true, client.touch("key", 100).get(), "touch");
        same(false, client.touch("nothing", 100).get(), "touch of nothing");
        if (binary) {
            same("mine", client.getAndTouch("key", 100).getValue(), "get and touch");
            same(null, client.getAndTouch("nothing", 100), "get and touch of nothing");
            long cas = client.gets("key").getCas();
            same(false, client.delete("key", cas + 1).get(), "delete with another cas");
            same(true, client.delete("key", cas).get(), "delete with a cas");
        }

        int now = (int) (System.currentTimeMillis() / 1000);
        Map<Integer, Object> times = new HashMap<>(Map.of(0, "x", 100, "x", 30 * 86_400, "x", now + 100, "x"));
        times.put(now - 10, null);
        for (Map.Entry<Integer, Object> time : times.entrySet()) {
            client.set("timed", time.getKey(), "x").get();
            same(time.getValue(), client.get("timed"), "expiry " + time.getKey());
        }
    }

    static void counters(MemcachedClient client) throws Exception {
        same(10L, client.incr("counter", 1, 10, 100), "incr that makes");
        same(15L, client.incr("counter", 5), "incr");
        same(0L, client.decr("counter", 50), "decr below nothing");
        same(7L, client.decr("down", 1, 7, 100), "decr that makes");
        same(6L, client.decr("down", 1), "decr");
        same(-1L, client.incr("missing", 1), "incr of nothing");
        same(-1L, client.decr("missing", 1), "decr of nothing");
        client.delete("counter").get();
        client.delete("down").get();

        // Eight threads write to one value. Each writes only if no other thread has written meanwhile.
        CASMutation<Object> next = value -> (Integer) value + 1;
        List<Thread> threads = new ArrayList<>();
        List<Exception> failures = Collections.synchronizedList(new ArrayList<>());
        for (int i = 0; i < 8; i++) {
            threads.add(new Thread(() -> {
                CASMutator<Object> mutator = new CASMutator<>(client, client.getTranscoder());
                try {
                    for (int j = 0; j < 20; j++) {
                        mutator.cas("sum", 1, 100, next);
                    }
                } catch (Exception error) {
                    failures.add(error);
                }
            }));
        }
        for (Thread thread : threads) {
            thread.start();
        }
        for (Thread thread : threads) {
            thread.join();
        }
        same(List.of(), failures, "failures of threads");
        same(160, client.get("sum"), "the sum");
    }

    // All requests are in flight at once. The client joins waiting gets into one request.
    static void many(MemcachedClient client) throws Exception {
        List<Future<Boolean>> stored = new ArrayList<>();
        for (int i = 0; i < 1000; i++) {
            stored.add(client.set("many-" + i, 100, i));
        }
        for (Future<Boolean> one : stored) {
            same(true, one.get(), "set of many");
        }
        List<String> keys = new ArrayList<>(List.of("nothing"));
        List<Future<Object>> asked = new ArrayList<>();
        for (int i = 0; i < 1000; i++) {
            keys.add("many-" + i);
            asked.add(client.asyncGet("many-" + i));
        }
        for (int i = 0; i < 1000; i++) {
            same(i, asked.get(i).get(), "get of many");
        }
        Map<String, Object> got = client.getBulk(keys);
        same(1000, got.size(), "get in bulk");
        for (Map.Entry<String, Object> entry : got.entrySet()) {
            same(entry.getKey(), "many-" + entry.getValue(), "one of many");
        }
        List<Future<Boolean>> deleted = new ArrayList<>();
        for (int i = 0; i < 1000; i++) {
            deleted.add(client.delete("many-" + i));
        }
        for (Future<Boolean> one : deleted) {
            same(true, one.get(), "delete of many");
        }
        same(Map.of(), client.getBulk(keys), "get in bulk of nothing");
    }

    static void servers(MemcachedClient client, int count) throws Exception {
        same(count, client.getVersions().size(), "versions");
        for (String version : client.getVersions().values()) {
            same(true, version.matches("1\\.6\\.\\d+"), version);
        }
        for (Map<String, String> stats : client.getStats().values()) {
            same(true, Integer.parseInt(stats.get("pid")) > 0 && Integer.parseInt(stats.get("cmd_set")) > 0, "stats");
        }
        for (Map<String, String> stats : client.getStats("settings").values()) {
            same("1024", stats.get("maxconns"), "maxconns");
        }
        same(true, client.flush().get(), "flush");
        same(null, client.get("typed"), "get after a flush");
    }

    public static void main(String[] arguments) throws Exception {
        // Turn off the log, because the client logs every connection.
        System.setProperty("net.spy.log.LoggerImpl", "net.spy.memcached.compat.log.SunLogger");
        Logger.getLogger("net.spy.memcached").setLevel(Level.OFF);
        List<String> ports = Arrays.asList(arguments).subList(0, 3);
        binary = arguments[3].equals("binary");
        for (List<String> used : List.of(ports.subList(0, 1), ports)) {
            MemcachedClient client = connect(used);
            values(client);
            stores(client);
            counters(client);
            many(client);
            servers(client, used.size());
            client.shutdown();
        }

        MemcachedClient client = connect(ports);
        for (int i = 0; i < 30; i++) {
            same(true, client.set("before-" + i, 100, "x").get(), "set before a restart");
        }
        System.out.println("restart");
        new BufferedReader(new InputStreamReader(System.in)).readLine();
        // The client repeats requests that it was sending when a server ended. It cancels requests that were waiting
        // for a reply.
        for (int i = 0; i < 30; i++) {
            boolean stored = false;
            for (int attempt = 0; attempt < 100 && !stored; attempt++) {
                try {
                    same(true, client.get("before-" + i) == null, "get after a restart");
                    stored = client.set("again-" + i, 100, "x").get();
                } catch (RuntimeException | java.util.concurrent.ExecutionException error) {
                    // The client takes some time to connect again.
                }
            }
            same("x", client.get("again-" + i), "what was set after a restart");
        }
        client.shutdown();
        System.out.println("ok");
    }
}
