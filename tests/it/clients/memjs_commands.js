// memjs: the binary protocol from JavaScript, with and without a user, over one server and three.
'use strict';
const assert = require('assert');
const readline = require('readline');
const memjs = require('memjs');

const ports = process.argv.slice(2);
assert.strictEqual(ports.length, 3);
const addresses = ports.map((port) => `127.0.0.1:${port}`);
const options = { timeout: 10, conntimeout: 10, retries: 2, retry_delay: 0.01, logger: { log() {} } };

const text = ({ value }) => (value === null ? null : value.toString());

async function commands(client) {
  assert.strictEqual(text(await client.get('nothing')), null);
  assert.strictEqual(await client.set('key', 'value', { expires: 100 }), true);
  assert.strictEqual(text(await client.get('key')), 'value');
  assert.strictEqual(await client.add('key', 'x', {}), false);
  assert.strictEqual(await client.add('new', 'b', {}), true);
  assert.strictEqual(await client.replace('new', 'b', {}), true);
  assert.strictEqual(await client.replace('nothing', 'x', {}), false);
  // The script uses no prepend, because this client sends the opcode of append for it.
  assert.strictEqual(await client.append('new', 'c'), true);
  await assert.rejects(client.append('nothing', 'c'), /not stored/i);
  assert.strictEqual(text(await client.get('new')), 'bc');
  assert.strictEqual(await client.delete('new'), true);
  assert.strictEqual(await client.delete('new'), false);

  const bytes = Buffer.from([0, 13, 10, 255, 0x80, 0x81, 0]);
  await client.set('bytes', bytes, {});
  assert.deepStrictEqual((await client.get('bytes')).value, bytes);
  await client.set('empty', '', {});
  assert.strictEqual(text(await client.get('empty')), '');

  assert.deepStrictEqual(await client.increment('counter', 5, { initial: 10 }), { success: true, value: 10 });
  assert.deepStrictEqual(await client.increment('counter', 5, {}), { success: true, value: 15 });
  assert.deepStrictEqual(await client.decrement('counter', 20, {}), { success: true, value: 0 });
  await Promise.all(Array.from({ length: 200 }, () => client.increment('counter', 1, {})));
  assert.strictEqual(Number(text(await client.get('counter'))), 200);

  const now = Math.floor(Date.now() / 1000);
  for (const [expires, value] of [[0, 'x'], [100, 'x'], [2592000, 'x'], [now + 100, 'x'], [now - 10, null]]) {
    await client.set('timed', 'x', { expires });
    assert.strictEqual(text(await client.get('timed')), value, `expires ${expires}`);
  }
  await client.set('timed', 'x', {});
  assert.strictEqual(await client.touch('timed', 100), true);
  assert.strictEqual(await client.touch('nothing', 100), false);

  // All requests are in flight at once.
  const keys = Array.from({ length: 300 }, (_, i) => `many-${i}`);
  await Promise.all(keys.map((key) => client.set(key, key, {})));
  assert.deepStrictEqual((await Promise.all(keys.map((key) => client.get(key)))).map(text), keys);

  const blob = Buffer.alloc(900000, 'memjs');
  await Promise.all([1, 2, 3].map((i) => client.set(`blob-${i}`, blob, {})));
  for (const i of [1, 2, 3]) assert.ok((await client.get(`blob-${i}`)).value.equals(blob));
  await assert.rejects(client.set('huge', Buffer.alloc(2 << 20), {}));
  assert.strictEqual(text(await client.get('huge')), null);
  assert.strictEqual(text(await client.get('key')), 'value');
}

// One kind of statistics of every server.
function statistics(client, kind) {
  const all = [];
  return new Promise((resolve, reject) => {
    const take = (error, server, stats) => {
      if (error) return reject(error);
      all.push(stats);
      if (all.length === client.servers.length) resolve(all);
    };
    if (kind) client.statsWithKey(kind, take);
    else client.stats(take);
  });
}

async function main() {
  for (const servers of [addresses[0], `user:password@${addresses[0]}`, addresses.join(',')]) {
    const client = memjs.Client.create(servers, options);
    await commands(client);
    for (const stats of await statistics(client)) {
      assert.ok(Number(stats.pid) > 0 && Number(stats.cmd_set) > 0 && /^1\.6\.\d+$/.test(stats.version), stats);
    }
    for (const settings of await statistics(client, 'settings')) assert.strictEqual(settings.maxconns, '1024');
    for (const slabs of await statistics(client, 'slabs')) assert.ok(Number(slabs.active_slabs) > 0);
    await client.flush();
    assert.strictEqual(text(await client.get('key')), null);
    client.close();
  }

  const client = memjs.Client.create(addresses[0], options);
  await client.set('before', 'x', {});
  const input = readline.createInterface({ input: process.stdin });
  const restarted = new Promise((resolve) => input.once('line', resolve));
  console.log('restart');
  await restarted;
  input.close();
  for (let i = 0; ; i++) {
    const set = await client.set('again', 'x', {}).catch(() => false);
    if (set && text(await client.get('again')) === 'x') break;
    assert.ok(i < 100, 'it does not reconnect');
  }
  assert.strictEqual(text(await client.get('before')), null);
  client.close();
  console.log('ok');
  process.exit(0);
}

main().catch((error) => {
  console.log(error && error.stack ? error.stack : error);
  process.exit(1);
});
