// memjs logs in by PLAIN as a user of `--users`.
const assert = require("assert");
const memjs = require("memjs");

const [port, username, password] = process.argv.slice(2);
const client = memjs.Client.create(`127.0.0.1:${port}`, { username, password });

async function main() {
    assert(await client.set("app:memjs", "a value", {}));
    assert.equal((await client.get("app:memjs")).value.toString(), "a value");
    await assert.rejects(client.set("other", "a value", {}));
    client.close();
    console.log("ok");
}

main().catch((error) => {
    console.error(error);
    process.exit(1);
});
