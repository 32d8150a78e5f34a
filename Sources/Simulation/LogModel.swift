import Base
import EventLog
import RecordFormat

/// What the simulation found wrong; the seed reproduces it.
package struct SimulationFailure: Error, CustomStringConvertible, Sendable {
    package let seed: UInt64
    package let step: Int
    package let what: String

    package var description: String { "seed \(seed), step \(step): \(what)" }
}

/// What a log was promised to hold, kept in memory: the naive oracle of the simulation.
struct LogModel {
    struct Event: Equatable {
        /// Unique in a run, and told by the event's content.
        let token: Int
        let key: String?
        let isTombstone: Bool
        let time: Int64
    }

    /// An append that has no answer yet, or an ambiguous one.
    struct Pending {
        let number: Int
        let events: [(partition: TopicPartition?, topic: String, event: Event)]
    }

    /// By partition and offset: acknowledged, and seen.
    private(set) var events: [TopicPartition: [Int64: Event]] = [:]
    private(set) var places: [Int: (partition: TopicPartition, offset: Int64)] = [:]
    private(set) var sequences: [Int: UInt64] = [:]
    /// Appends that may or may not have happened.
    var ambiguous: [Pending] = []
    /// Acknowledged relaxed: they may go with the power until they are synced.
    private(set) var relaxed: [Int: (partition: TopicPartition, offset: Int64, sequence: UInt64, append: Pending)] = [:]
    var starts: [TopicPartition: Int64] = [:]

    mutating func acknowledge(
        _ event: Event, _ partition: TopicPartition, _ offset: Int64, _ sequence: UInt64?, relaxed append: Pending?
    ) -> String? {
        if let other = events[partition]?[offset], other != event {
            return "\(partition)@\(offset) was given to token \(event.token) and to \(other.token)"
        }
        if let sequence {
            if let other = sequences.first(where: { $0.value == sequence && $0.key != event.token }) {
                return "sequence \(sequence) was given to token \(event.token) and to \(other.key)"
            }
            sequences[event.token] = sequence
        }
        events[partition, default: [:]][offset] = event
        places[event.token] = (partition, offset)
        if let append, let sequence { relaxed[event.token] = (partition, offset, sequence, append) }
        return nil
    }

    /// Everything below a sequence is on disk.
    mutating func settle(below sequence: UInt64) {
        relaxed = relaxed.filter { $0.value.sequence >= sequence }
    }

    /// The power went: what was only relaxed is ambiguous again.
    mutating func losePower() {
        var appends: [Int: Pending] = [:]
        for (token, place) in relaxed {
            events[place.partition]?[place.offset] = nil
            places[token] = nil
            sequences[token] = nil
            appends[place.append.number] = place.append
        }
        ambiguous += appends.values.sorted { $0.number < $1.number }
        relaxed = [:]
    }

    /// Whether compaction may have taken an event: it is not the newest of its key, or it is a tombstone.
    func mayBeCompacted(_ partition: TopicPartition, _ offset: Int64) -> Bool {
        guard let list = events[partition], let event = list[offset], let key = event.key else { return false }
        return event.isTombstone || list.contains { $0.key > offset && $0.value.key == key }
    }

    /// After a restart: compares what is there with what was promised, and takes in what turned out to have happened.
    /// - Parameters:
    ///   - found: token by partition and offset.
    ///   - compacted: topics in which records may go.
    mutating func compare(_ found: [TopicPartition: [Int64: Event]], compacted: Set<String>) -> String? {
        for (partition, list) in events.sorted(by: { $0.key < $1.key }) {
            for (offset, event) in list.sorted(by: { $0.key < $1.key }) where offset >= starts[partition] ?? 0 {
                guard let there = found[partition]?[offset] else {
                    if compacted.contains(partition.topic), mayBeCompacted(partition, offset) { continue }
                    return "token \(event.token) was acknowledged at \(partition)@\(offset) and is lost"
                }
                guard there == event else {
                    return "token \(event.token) at \(partition)@\(offset) has become token \(there.token)"
                }
            }
        }
        return adopt(found)
    }

    private mutating func adopt(_ found: [TopicPartition: [Int64: Event]]) -> String? {
        var owners: [Int: Pending] = [:]
        ambiguous.sort { $0.number < $1.number }
        for append in ambiguous {
            // Offered again while the first offer was under way: the first one wins.
            for (_, _, event) in append.events where owners[event.token] == nil { owners[event.token] = append }
        }
        var seen: [Int: Set<Int>] = [:]
        for (partition, list) in found.sorted(by: { $0.key < $1.key }) {
            for (offset, event) in list.sorted(by: { $0.key < $1.key }) where events[partition]?[offset] == nil {
                guard offset >= starts[partition] ?? 0 else { continue }
                guard let owner = owners[event.token] else {
                    return "token \(event.token) stands at \(partition)@\(offset) and was never offered there"
                }
                if let place = places[event.token] {
                    return "token \(event.token) stands at \(place) and again at \(partition)@\(offset)"
                }
                seen[owner.number, default: []].insert(event.token)
                events[partition, default: [:]][offset] = event
                places[event.token] = (partition, offset)
            }
        }
        for append in ambiguous {
            let fresh = append.events.filter { places[$0.event.token] == nil }.count
            if let some = seen[append.number], fresh > 0 {
                return "append \(append.number) happened in part: \(some.sorted()) are there, \(fresh) are not"
            }
        }
        ambiguous = []
        return nil
    }
}
