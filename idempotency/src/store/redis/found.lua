return { 2, head, claimed, now }
