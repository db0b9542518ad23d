// One rider's journey through Alipay's own client: node alipay.mjs SIMULATOR_URL < credentials
// Prints one JSON object: what the client was told, and what it read of the notifications.
import http from 'node:http';
import { once } from 'node:events';
import { text } from 'node:stream/consumers';
import { AlipaySdk } from 'alipay-sdk';

const simulator = process.argv[2];
const { account, appId, privateKey, publicKey, certificates } = JSON.parse(await text(process.stdin));

const notices = [];
let arrived = () => {};
let sdk;
const inbox = http.createServer(async (request, response) => {
  const form = Object.fromEntries(new URLSearchParams(await text(request)));
  delete form.alipay_cert_sn; // The client knows nothing of it; Alipay does not sign it.
  notices.push({ form, believed: sdk.checkNotifySignV2({ ...form }), forged: sdk.checkNotifySignV2({ ...form, app_id: '1' }) });
  response.end('success');
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
  account_id: account, face: 'alipay', alipay: { app_id: appId, public_key: publicKey, certificates }, notify_url: notifyUrl,
  terms: { provider_retries: true, hold_needed: true },
});
const keys = await workbench('GET', `/keys?account=${account}`);
const believing = certificates ? {
  appCertContent: keys.app_certificate, alipayPublicCertContent: keys.certificates[0], alipayRootCertContent: keys.root_certificates,
} : { alipayPublicKey: keys.public_keys[0] };
sdk = new AlipaySdk({ appId, privateKey, keyType: 'PKCS8', ...believing, gateway: `${simulator}/gateway.do` });
const call = (method, bizContent) => sdk.exec(method, { bizContent }, { validateSign: true });

const orderString = sdk.sdkExecute('zhima.credit.payafteruse.creditagreement.sign', {
  bizContent: { out_agreement_no: 'agr_node', zm_service_id: '2020', category_id: 'bike', external_logon_id: 'rider' },
});
const signed = await workbench('POST', '/alipay/rider?answer=confirm', orderString);
const agreement = await call('zhima.credit.payafteruse.creditagreement.query', { out_agreement_no: 'agr_node' });
const order = await call('zhima.credit.payafteruse.creditbizorder.order', {
  credit_agreement_id: agreement.creditAgreementId, out_order_no: 'order_node_1', subject: '骑行', order_amount: '30.00',
});
const number = order.creditBizOrderId;
const paid = await call('alipay.trade.pay', {
  out_trade_no: number, auth_code: number, scene: 'ZHIMA_CREDIT_CODE', product_code: 'GENERAL_WITHHOLDING',
  is_async_pay: true, query_options: ['async_pay_info'], total_amount: '12.34', subject: '骑行 "{"',
});
const trade = await call('alipay.trade.query', { out_trade_no: number });
const refund = await call('alipay.trade.refund', { out_trade_no: number, refund_amount: '2.34', out_request_no: 'refund_1' });
const refunded = await call('alipay.trade.fastpay.refund.query', { out_trade_no: number, out_request_no: 'refund_1' });
const finished = await call('zhima.credit.payafteruse.creditbizorder.finish', {
  credit_biz_order_id: number, out_request_no: 'finish_1', is_fulfilled: 'true',
});
const refused = await call('alipay.trade.query', { out_trade_no: 'nobody' });
while (notices.length < 5) await new Promise((resolve) => { arrived = resolve; });
inbox.close();
inbox.closeAllConnections();
console.log(JSON.stringify({ signed, agreement, order, paid, trade, refund, refunded, finished, refused, notices }));
process.exit(0);
