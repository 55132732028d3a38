"""How the replicas of one job agree: a fence, a register per task and round, and who the replicas are.

This is single-decree Paxos (L. Lamport, "Paxos made simple", 2001) for many registers under one ballot, so a
leader reads once and then writes each register in one round trip. Who the replicas are changes as in Raft
(D. Ongaro, J. Ousterhout, "In search of an understandable consensus algorithm", 2014, section 6): through a
joint membership, in which majorities of old and new both count. Unlike there, nothing is a log: a register
is written again as long as its task is open, and never once it is decided.

``acceptor`` is what a replica remembers and answers; ``leader`` is what an owner asks and tells. Neither
knows tasks, workers or disks: a register is a pair of numbers, its value is bytes.

What must hold, and what the model checker in the tests takes away one at a time:

1. A replica has a promise, or a row, on disk before it answers for it.
2. A replica answers no ballot that is lower than its promise: neither a question nor a write.
3. A leader tells nothing before it has read a quorum, and takes up what has the highest stamp there.
4. What it took up is told once a quorum has it under one stamp, as is what it writes itself.
5. A ballot is used in one life of one store: a leader that starts again takes a new one, which its own
   replica has on disk before anybody else is asked.
6. A replica is a node *and* a store: one whose disk was wiped is another, and does not vote.
7. While the membership is joint, majorities of old and new both count, to read as to write; a leader goes by
   the newest membership that anybody told it, and leaves the joint one when the new replicas have all rows.
   Only who was alone, and began the change under the same ballot, takes it back.
8. A decided register is never written again.
9. Without a word from a quorum for one lease, a leader grants nothing.
"""
