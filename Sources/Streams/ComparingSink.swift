import Base
import EventLog
import RecordFormat

/// The sink of a replay: nothing is written; every event that the fold emits again is compared with what the log holds at
/// the same position, and the first difference of each topic is kept.
package final class ComparingSink: DerivedSink, DerivedPlaces {
    package struct Divergence: Sendable {
        package let position: String
        package let time: Instant
        package let id: String
        package let reason: String
    }

    private let log: any EventLog
    private let visit: (DerivedEvent) throws -> Void
    private let ends: [String: Int64]?
    private let reader: DerivedReader
    private let side: SideTopics
    package private(set) var compared: Int64 = 0
    package private(set) var first: Divergence?

    /// - Parameters:
    ///   - ends: where the comparison of each topic ends; nil compares everything.
    ///   - side: the topology's own.
    ///   - partition: of the task that is replayed.
    ///   - visit: sees every event the replay emits.
    package init(
        log: any EventLog, ends: [String: Int64]? = nil, side: SideTopics = .platform, partition: Int = 0,
        visit: @escaping (DerivedEvent) throws -> Void
    ) {
        self.log = log
        self.side = side
        reader = DerivedReader(log: log, partition: partition)
        self.ends = ends
        self.visit = visit
    }

    package func take(_ event: DerivedEvent) throws {
        let placed = places == nil ? nil : reader.taken(event.topic, event.offset)
        try compare(event, placed)
        try visit(event)
    }

    private func compare(_ event: DerivedEvent, _ placed: StoredEvent?) throws {
        if let end = ends?[event.topic], event.offset >= end { return }
        var found = placed
        if places == nil { found = try reader.event(event.topic, atOrAfter: event.offset) }
        guard let logged = found, logged.offset == event.offset else {
            // Where markers stand between events, only looking tells that a topic has come to its end.
            if places != nil, ends != nil { return }
            diverge(event, "the log ends before it")
            return
        }
        compared += 1
        if logged.id != event.event.id {
            diverge(event, "the log holds '\(logged.id)' there")
        } else if logged.time != event.event.time {
            diverge(event, "the log dates it \(logged.time)")
        } else if event.topic == side.unfolded {
            // That it failed must be so again; the text of the reason is for people and may change between versions.
        } else if logged.withData({ raw in event.event.data.map { raw.elementsEqual($0) } ?? false }) != true {
            diverge(event, event.topic == side.digests ? stateDifference(event, logged) : "its data is another")
        }
    }

    /// Which stores came to another state since the digests before, which were equal: this is the first that differs.
    private func stateDifference(_ event: DerivedEvent, _ logged: StoredEvent) -> String {
        let ours = event.event.data.flatMap { try? JSON(parsing: $0) }?["stores"]?.object ?? [:]
        let theirs = logged.data.flatMap { try? JSON(parsing: $0) }?["stores"]?.object ?? [:]
        let names = Set(ours.keys).union(theirs.keys).sorted().filter { ours[$0] != theirs[$0] }
        return
            "in the day before it the state of \(names.map { "'\($0)'" }.joined(separator: ", ")) became another, though every event emitted until then is the same"
    }

    private func diverge(_ event: DerivedEvent, _ reason: String) {
        guard first == nil else { return }
        first = Divergence(
            position: "\(event.topic)/\(event.partition)@\(event.offset)", time: event.event.time, id: event.event.id,
            reason: reason)
    }

    /// Markers have no place in a fold: the events go where the log has events.
    package var places: (any DerivedPlaces)? { log.capabilities.contains(.denseOffsets) ? nil : self }

    package func place(_ topic: String, from next: Int64) throws -> Int64 {
        try reader.place(topic, atOrAfter: next)?.offset ?? next
    }

    package func sliceEnded(_ consumed: () -> [TopicPartition: Int64]) throws {}
    package func flush(_ consumed: () -> [TopicPartition: Int64]) throws {}
}
