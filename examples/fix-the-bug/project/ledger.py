"""Who owes whom: shared expenses in whole cents."""

from collections import defaultdict


def parse_amount(text):
    """'12.34' as 1234 cents. Two decimals at most; no sign."""
    whole, _, fraction = text.partition(".")
    if not whole.isdigit() or (fraction and not fraction.isdigit()) or len(fraction) > 2:
        raise ValueError(f"not an amount: {text!r}")
    return int(whole) * 100 + int(fraction.ljust(2, "0"))


def split(cents, people):
    """Shares of `cents` for each of `people`, in their order. The shares add up to `cents`."""
    share = cents // len(people)
    return {person: share for person in people}


def balances(expenses):
    """What each person is owed (positive) or owes (negative), from (payer, cents, people) triples."""
    result = defaultdict(int)
    for payer, cents, people in expenses:
        result[payer] += cents
        for person, share in split(cents, people).items():
            result[person] -= share
    return dict(result)


def settle(balance):
    """Payments (from, to, cents) that bring every balance to zero."""
    debtors = sorted((-cents, person) for person, cents in balance.items() if cents < 0)
    creditors = sorted((cents, person) for person, cents in balance.items() if cents > 0)
    payments = []
    while debtors and creditors:
        debt, debtor = debtors.pop()
        credit, creditor = creditors.pop()
        paid = min(debt, credit)
        payments.append((debtor, creditor, paid))
        if debt > paid:
            debtors.append((debt - paid, debtor))
        if credit > paid:
            creditors.append((credit - paid, creditor))
    return payments
