"""A payment provider to try things on: a process of its own over HTTP, with its own books, and several faces.

It shares no code and no table with the service, so that its books are the tests' oracle: what the service believes it
moved is compared with what the wallets here really lost.

    service --HTTP--> merchants      --> mishaps --> desk --> agreements | holds | debits | ... --> books --> journal
       ^              alipay.gateway      (faults)                                                         |
       |              wechatpay.gateway                                                                    |
       |              (the faces)                                                                          |
       +------------- courier <--- sandbox | *.messages <--------- changes of rows, worth telling <--------+

A face is: a door that finds the account, checks what was signed, and says things its own way (`mishaps.Voice`); its
notifications (`faces.Face`, in `server.FACES`); its rider's side, where the rider does not use `/rider/`; and the
credentials of its accounts (`rows.Account`, `workshop.checked`). The core knows no face. Everything that can go wrong
is scripted by the core's operations and kinds (`faults`), the same for every face.
"""
