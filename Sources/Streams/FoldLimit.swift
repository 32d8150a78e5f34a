import Base
import EventLog

/// How far a replay goes, or as of what a state is asked for.
package enum FoldLimit: Sendable, Equatable, CustomStringConvertible {
    /// As far as the log went when it began.
    case end
    /// Every event with a time up to it, and every timer.
    case time(Instant)
    /// Up to an event that the fold reads, and with it; what stands elsewhere in the log, as the fold's order has it.
    case position(Position)

    /// An RFC 3339 time, or a position such as `orders/0@17`; nil for anything else.
    package init?(_ text: String?) {
        guard let text else {
            self = .end
            return
        }
        if let time = Instant(text) {
            self = .time(time)
        } else if let position = Position(text) {
            self = .position(position)
        } else {
            return nil
        }
    }

    package var description: String {
        switch self {
        case .end: "the end"
        case .time(let time): time.description
        case .position(let position): position.description
        }
    }

    package var isEnd: Bool { self == .end }
}

extension TopologyRunner {
    /// The fold ends there.
    /// - Throws: `no-input` where the position is none that it reads, `bad-position` where nothing stands there yet.
    package func end(at limit: FoldLimit) throws {
        switch limit {
        case .end: return
        case .time(let time): horizon = time
        case .position(let position):
            let place = TopicPartition(position.topic, position.partition)
            guard let input = inputs.firstIndex(where: { $0.partition == place }) else {
                let known = inputs.map(\.partition.description).joined(separator: ", ")
                throw StreamsError(
                    "no-input", "'\(label)' does not read \(place); a position for it is one of \(known)")
            }
            guard !inputs[input].sorts else {
                throw StreamsError(
                    "no-order",
                    "\(place) has a lateness: its events are folded in the order of their times, so that no position says how far; give a time"
                )
            }
            let end = try inputs[input].end ?? log.offsets(place).upperBound
            guard position.offset < end else {
                throw StreamsError("bad-position", "nothing stands at \(position) yet")
            }
            lastEvent = (input, position.offset)
        }
    }
}
