INSERT INTO probity_txn_tokens (token, label, result)
VALUES ('number', 'payout', '7');
INSERT INTO probity_txn_tokens (token, label, result)
VALUES ('unit', 'payout', 'null');
INSERT INTO probity_txn_tokens (token, label, result)
VALUES ('nothing', 'payout', 'null');
INSERT INTO probity_txn_tokens (token, label, result)
VALUES ('booked', 'payout', '"Booked"');
INSERT INTO probity_txn_tokens (token, label, result)
VALUES ('receipt', 'payout', '{"number":"R-1 \"quoted\" ''and'' ü","cents":-9223372036854775808,"rate":0.9452706955539223,"note":null,"parts":[[1,true],[2,false]],"tags":{"a":0,"b":18446744073709551615},"state":{"Held":{"until":5}}}');
