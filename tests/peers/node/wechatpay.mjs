// One rider's journey through wechatpay-axios-plugin: node wechatpay.mjs SIMULATOR_URL < credentials
// Prints one JSON object: what the client was told, and what it read of the notifications.
import http from 'node:http';
import { once } from 'node:events';
import { text } from 'node:stream/consumers';
import { Wechatpay, Rsa, Aes, Formatter } from 'wechatpay-axios-plugin';

const simulator = process.argv[2];
const { account, mchid, appid, serviceId, serial, apiv3Key, privateKey, publicKey } = JSON.parse(await text(process.stdin));

const notices = [];
let arrived = () => {};
let certs;
const inbox = http.createServer(async (request, response) => {
  const body = await text(request);
  const { 'wechatpay-timestamp': timestamp, 'wechatpay-nonce': nonce, 'wechatpay-serial': by, 'wechatpay-signature': signature } = request.headers;
  const signed = (content) => Rsa.verify(Formatter.joinedByLineFeed(timestamp, nonce, content), signature, certs[by]);
  const { event_type: kind, resource } = JSON.parse(body);
  const plain = Aes.AesGcm.decrypt(resource.ciphertext, apiv3Key, resource.nonce, resource.associated_data);
  notices.push({ kind, believed: signed(body), forged: signed(`${body} `), resource: JSON.parse(plain) });
  response.writeHead(204).end();
  arrived();
});
inbox.listen(0, '127.0.0.1');
await once(inbox, 'listening');
const notifyUrl = `http://127.0.0.1:${inbox.address().port}/`;

async function workbench(method, path, body) {
  const answer = await fetch(simulator + path, { method, body: typeof body === 'string' ? body : JSON.stringify(body) });
  if (!answer.ok) throw new Error(`${method} ${path}: ${answer.status} ${await answer.text()}`);
  return answer.json();
}

await workbench('PUT', '/accounts', {
  account_id: account, face: 'wechatpay', notify_url: notifyUrl,
  wechatpay: { mchid, appid, service_id: serviceId, serial_no: serial, public_key: publicKey, apiv3_key: apiv3Key },
  terms: { provider_retries: true, nudge: true, hold_needed: true, reduce_pending: true, new_key_after_decline: false },
});
const keys = await workbench('GET', `/keys?account=${account}`);
certs = Object.fromEntries(keys.serials.map((one, index) => [one, keys.certificates[index]]));
const wxpay = new Wechatpay({ mchid, serial, privateKey, certs, baseURL: `${simulator}/` });
const names = { appid, service_id: serviceId };
const payscore = wxpay.v3.payscore;

const asked = await payscore.permissions.post({ ...names, authorization_code: 'perm_node', notify_url: notifyUrl });
const opened = await workbench('POST', '/wechatpay/rider?answer=confirm&rider=rider', asked.data.apply_permissions_token);
const permission = await payscore.permissions['authorization-code'].perm_node.get({ params: { service_id: serviceId } });
const order = await payscore.serviceorder.post({
  ...names, out_order_no: 'order_node_1', service_introduction: '骑行', openid: permission.data.openid,
  time_range: { start_time: 'OnAccept' }, risk_fund: { name: 'ESTIMATE_ORDER_COST', amount: 3000 },
  need_user_confirm: false, notify_url: notifyUrl,
});
const lines = { post_payments: [{ name: '骑行 20', amount: 1334 }], post_discounts: [{ name: '月卡', description: '减1元', amount: 100 }] };
const end = new Date(Date.now() + 8 * 3600e3).toISOString().replace(/[-:T]/g, '').slice(0, 14);
const completed = await payscore.serviceorder.order_node_1.complete.post({
  ...names, ...lines, total_amount: 1234, time_range: { end_time: end },
});
const query = { params: { ...names, out_order_no: 'order_node_1' } };
const isPaid = () => notices.some(({ kind }) => kind === 'PAYSCORE.USER_PAID');
while (!isPaid()) await new Promise((resolve) => { arrived = resolve; });
const paid = await payscore.serviceorder.get(query);
const transactionId = paid.data.collection.details[0].transaction_id;
const refund = await wxpay.v3.refund.domestic.refunds.post({
  transaction_id: transactionId, out_refund_no: 'refund_1', amount: { refund: 234, total: 1234, currency: 'CNY' },
});
const refunded = await wxpay.v3.refund.domestic.refunds.refund_1.get();
const refused = await payscore.serviceorder.get({ params: { ...names, out_order_no: 'nobody' } }).catch(({ response }) => ({
  status: response.status, data: response.data, requestId: response.headers['request-id'],
}));
while (notices.length < 3) await new Promise((resolve) => { arrived = resolve; });
inbox.close();
inbox.closeAllConnections();
const told = { opened, permission, order, completed, paid, refund, refunded };
const data = Object.fromEntries(Object.entries(told).map(([name, one]) => [name, one.data ?? one]));
console.log(JSON.stringify({ ...data, refused, notices }));
process.exit(0);
