<?php
// php-memcached logs in by the best mechanism that its SASL library has, as a user of `--users`.
[, $port, $name, $password] = $argv;
$client = new Memcached();
$client->setOption(Memcached::OPT_BINARY_PROTOCOL, true);
$client->setSaslAuthData($name, $password);
$client->addServer("127.0.0.1", (int) $port);
if (!$client->set("app:php", "a value") || $client->get("app:php") !== "a value") {
    exit("failed: " . $client->getResultMessage());
}
if ($client->set("other", "a value")) {
    exit("it may set another key");
}
echo "ok\n";
