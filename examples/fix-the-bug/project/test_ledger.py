import unittest

from ledger import balances, parse_amount, settle, split


class Amounts(unittest.TestCase):
    def test_reads_whole_and_broken_amounts(self):
        self.assertEqual(parse_amount("12"), 1200)
        self.assertEqual(parse_amount("12.3"), 1230)
        self.assertEqual(parse_amount("0.05"), 5)

    def test_refuses_what_is_no_amount(self):
        for text in ["", "-1", "1.234", "ten", "1.x"]:
            with self.assertRaises(ValueError):
                parse_amount(text)


class Splitting(unittest.TestCase):
    def test_even_shares(self):
        self.assertEqual(split(900, ["ann", "bob", "cy"]), {"ann": 300, "bob": 300, "cy": 300})

    def test_no_cent_is_lost(self):
        self.assertEqual(split(1000, ["ann", "bob", "cy"]), {"ann": 334, "bob": 333, "cy": 333})
        self.assertEqual(sum(split(1001, ["ann", "bob", "cy"]).values()), 1001)


class Settling(unittest.TestCase):
    def test_balances_add_up_to_zero(self):
        expenses = [("ann", 1000, ["ann", "bob", "cy"]), ("bob", 250, ["bob", "cy"])]
        self.assertEqual(sum(balances(expenses).values()), 0)

    def test_payments_settle_everything(self):
        balance = {"ann": 500, "bob": -200, "cy": -300}
        for debtor, creditor, cents in settle(balance):
            balance[debtor] += cents
            balance[creditor] -= cents
        self.assertEqual(set(balance.values()), {0})


if __name__ == "__main__":
    unittest.main()
