import Base
import EventLog

/// Where a changed topology takes over from the one that wrote before it, in one task: at what the other had folded when it
/// came to rest. The changed one folds everything before this place without a word, and speaks from there on, so that its
/// readers miss nothing and get nothing twice. It stands in the definition, so a replay takes over at the same place.
package struct Takeover: Sendable, Equatable {
    /// Stream time of the one before.
    package let now: Instant
    /// The timer that it fired last, by its name, where no event came behind it.
    package let fired: String?
    /// The first offset that it had not folded.
    package let inputs: [TopicPartition: Int64]
    /// Where its topics go on.
    package let emitted: [String: Int64]
    /// Of inputs that are sorted: the last event of this very moment that it folded. What comes behind it was read, and waits.
    package let waiting: [TopicPartition: Int64]

    package init(
        now: Instant, fired: String?, inputs: [TopicPartition: Int64], emitted: [String: Int64],
        waiting: [TopicPartition: Int64] = [:]
    ) {
        self.waiting = waiting
        self.now = now
        self.fired = fired
        self.inputs = inputs
        self.emitted = emitted
    }

    /// Timers behind this one are the new topology's to speak of.
    var lastTimer: TimerQueue.Entry {
        fired.flatMap { TimerQueue.Entry(name: $0) } ?? TimerQueue.Entry(time: now, stage: -1, key: "")
    }

    package var json: JSON {
        .object([
            "now": .int(now.milliseconds), "fired": fired.map { .string($0) } ?? .null,
            "inputs": Self.list(inputs), "waiting": Self.list(waiting),
            "emitted": .object(emitted.mapValues { .int($0) }),
        ])
    }

    private static func list(_ places: [TopicPartition: Int64]) -> JSON {
        .array(
            places.sorted { $0.key < $1.key }.map {
                .array([.string($0.key.topic), .int(Int64($0.key.partition)), .int($0.value)])
            })
    }

    private static func places(_ json: JSON?) -> [TopicPartition: Int64]? {
        var places: [TopicPartition: Int64] = [:]
        for item in json?.array ?? [] {
            guard let item = item.array, item.count == 3, let topic = item[0].string, let partition = item[1].int,
                let offset = item[2].int
            else { return nil }
            places[TopicPartition(topic, Int(partition))] = offset
        }
        return places
    }

    /// nil for what no takeover is written like.
    package init?(_ json: JSON) {
        guard let now = json["now"]?.int, let inputs = Self.places(json["inputs"]),
            let waiting = Self.places(json["waiting"]), let emitted = json["emitted"]?.object
        else { return nil }
        self.init(
            now: Instant(milliseconds: now), fired: json["fired"]?.string, inputs: inputs,
            emitted: emitted.compactMapValues(\.int), waiting: waiting)
    }
}

extension Takeover {
    /// What a task's last checkpoint says of the place where it stands; nil where it was folded by another topology, or never.
    /// - Parameter tookOver: it took over itself, so it may not have come that far.
    /// - Throws: `not-at-rest` where nobody can take over from there.
    package init?(_ database: StateDatabase, of identity: Digest?, tookOver: Bool = false) throws(StreamsError) {
        guard let (inputs, meta) = try database.standing(), meta[StateDatabase.identity] == identity?.hex else {
            return nil
        }
        let reason =
            meta[WaitingEvents.behindMark].map { "'\($0)' is older than what was folded last, and still waits" }
            ?? (tookOver && meta[TopologyRunner.takenMark] == nil
                ? "it has not yet come to where it took over from the one before" : nil)
        if let reason {
            throw StreamsError(
                "not-at-rest",
                "the stream in force is not at rest (\(reason)): start the program that has it once more until it has nothing left to fold, let it stop in order (SIGTERM), and swap then",
                fault: .world)
        }
        var emitted: [String: Int64] = [:]
        for (name, value) in meta where name.hasPrefix(TopologyRunner.emittedMark) {
            emitted[String(name.dropFirst(TopologyRunner.emittedMark.count))] = Int64(value)
        }
        let now = meta["now"].flatMap { Int64($0) }.map { Instant(milliseconds: $0) } ?? .distantPast
        var waiting: [TopicPartition: Int64] = [:]
        for (name, value) in meta where name.hasPrefix(WaitingEvents.releasedMark) {
            guard let place = TopicPartition(parsing: String(name.dropFirst(WaitingEvents.releasedMark.count))),
                let entry = TimerQueue.Entry(name: value), entry.time == now
            else { continue }
            waiting[place] = WaitingEvents.offset(entry)
        }
        self.init(
            now: now,
            fired: meta[TopologyRunner.firedMark].flatMap { $0.isEmpty ? nil : $0 },
            inputs: Dictionary(inputs.map { ($0.partition, $0.next) }) { $1 }, emitted: emitted,
            waiting: waiting)
    }
}

/// Taking over from the topology before.
extension TopologyRunner {
    static let emittedMark = "emitted/"
    /// Under this name stands the timer that was the last thing to happen; nothing where that was an event.
    static let firedMark = "fired"
    /// Under this name stands that the topology before was taken over from.
    static let takenMark = "taken"

    /// The topology speaks of nothing yet: it has not come to where it takes over.
    package var isSilent: Bool { pending != nil }

    /// From here to its place the runner is silent.
    func awaitTakeover(_ takeover: Takeover) {
        pending = takeover
        timerLimit = takeover.lastTimer
        context.places = nil
        for index in inputs.indices {
            guard let end = takeover.inputs[inputs[index].partition] else { continue }
            // An end before that is no takeover's: there the log is silent.
            inputs[index].endsWanted = inputs[index].end ?? end >= end
            inputs[index].end = min(inputs[index].end ?? end, end)
        }
    }

    /// Begins to speak, if everything before the place is folded. What the topology before did not read must be known
    /// through its stream time.
    func takeOver() -> Bool {
        guard let takeover = pending else { return false }
        let hold = context.holds.count == 0 ? nil : context.holds.values.map(\.until).min()
        if choose().waits, let entry = waiting.peek(), entry.time <= takeover.now { return false }
        for input in inputs {
            if let end = takeover.inputs[input.partition] {
                guard input.end == end, input.isAtEnd else { return false }
            } else if !input.hasHead, let bound = input.bound(hold: hold), bound.time <= takeover.now {
                return false
            }
        }
        for index in inputs.indices where takeover.inputs[inputs[index].partition] != nil {
            inputs[index].goOn(until: ends.map { $0[inputs[index].partition] ?? 0 })
        }
        pending = nil
        timerLimit = nil
        context.emittedOffsets = takeover.emitted
        context.places = sink.places
        if stopsAtTakeover { stop() }
        return true
    }

    /// What keeps the runner from its place, for people.
    package var missing: String {
        guard let takeover = pending else { return "nothing" }
        let behind = inputs.filter { input in
            takeover.inputs[input.partition].map { input.end != $0 || !input.isAtEnd } ?? !input.hasHead
        }
        return behind.map { "\($0.partition) is known through \($0.completeThrough)" }.joined(separator: ", ")
    }
}
