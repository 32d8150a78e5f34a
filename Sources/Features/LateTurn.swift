import Base
import Streams

/// When a fold takes an event that came late: behind everything of the time that its partition was complete through when it was
/// written, in the order of rounds (decision 12). Of events of one time, those that came late stand behind the others, in this order.
package struct LateTurn: Comparable, Sendable {
    /// What its partition was complete through, in milliseconds.
    package let through: Int64
    package let round: Int64

    package init(through: Instant, round: Int64) { (self.through, self.round) = (through.milliseconds, round) }

    /// Of an event of that time behind such progress; nil when it is in time.
    package init?(_ time: Instant, behind progress: PartitionProgress) {
        guard time <= progress.through else { return nil }
        self.init(through: progress.through, round: progress.round)
    }

    /// How far an event of that time is behind, in milliseconds.
    package func lag(of time: Instant) -> Int64 { through - time.milliseconds }

    package static func < (left: LateTurn, right: LateTurn) -> Bool {
        left.through == right.through ? left.round < right.round : left.through < right.through
    }

    /// What is in time stands before everything that is late.
    static func precedes(_ left: LateTurn?, _ right: LateTurn?) -> Bool? {
        guard left != right else { return nil }
        guard let left else { return true }
        guard let right else { return false }
        return left < right
    }
}
