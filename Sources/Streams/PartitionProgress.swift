import Base

/// What the progress events of a partition have promised so far, as everybody reads them who reads the partition.
package struct PartitionProgress: Sendable {
    /// Nothing that is not late comes with a time up to this.
    package private(set) var through: Instant
    /// The newest round that was named (decision 12).
    package private(set) var round: Int64

    /// Rounds beyond this are nobody's: JSON keeps whole numbers up to here everywhere.
    private static let roundLimit: Int64 = 1 << 53

    package init(through: Instant = .distantPast, round: Int64 = 0) { (self.through, self.round) = (through, round) }

    /// Takes the data of a progress event.
    package mutating func apply(_ document: JSONDocument) {
        if let node = document.member(0, "through"), let text = document.string(node), let time = Instant(text) {
            through = max(through, time)
        }
        if let node = document.member(0, "round"), let number = document.int(node),
            (0..<Self.roundLimit).contains(number)
        {
            round = max(round, number)
        }
    }
}
