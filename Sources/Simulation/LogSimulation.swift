import Base
import EventLog
import RecordFormat

/// One seeded life of an embedded log on a simulated disk: appends, group commits, rewriting, trimming, compaction,
/// faults, power failures and restarts in random order, compared with a model after each restart.
package struct LogSimulation {
    package struct Outcome: Sendable {
        package var appends = 0
        package var events = 0
        package var crashes = 0
        package var restarts = 0
        package var rewritten: UInt64 = 0
        package var rotten = 0
        package init() {}
    }

    static let topics: [TopicLayout] = [
        TopicLayout(name: "events", partitions: 2),
        TopicLayout(name: "table", partitions: 1, isCompacted: true, tombstoneRetention: 50),
        TopicLayout(name: "brief", partitions: 1, retention: Retention(bytes: 3000)),
        TopicLayout(name: "plain", partitions: 1, deduplication: .never),
    ]
    static let compacted: Set<String> = ["table"]
    static let steps = 60
    /// In lives of these seeds reads fail, too.
    package static let readsFailFrom: UInt64 = 20_000
    /// In lives of these seeds they fail while the log is opened, too.
    package static let openingsFailFrom: UInt64 = 100_000

    let seed: UInt64
    var random: SeededRandom
    let volume: SimulatedVolume
    var log: EmbeddedLog?
    var model = LogModel()
    var inbox = Monitor<[(Int, Result<[EventReceipt], EventLogError>)]>([])
    var offered: [Int: (append: LogModel.Pending, durability: Durability)] = [:]
    var nextToken = 0
    var nextAppend = 0
    var step = 0
    let clock = Monitor<Int64>(1000)
    var producer: (identity: ProducerIdentity, next: Int32, last: [(sequence: Int32, token: Int, batch: EncodedBatch)])?
    var outcome = Outcome()
    /// Then files may hold more than the manifest says, and damage there is no damage.
    var upkeepFailed = false
    let trace: Bool

    package init(seed: UInt64, canary: SimulatedVolume.Canary? = nil, trace: Bool = false) {
        self.seed = seed
        random = SeededRandom(seed: seed &* 0x9E37_79B9 &+ 17)
        volume = SimulatedVolume(seed: seed &+ 1, canary: canary)
        self.trace = trace
    }

    /// Runs one seed; throws a `SimulationFailure` when a promise was broken.
    package static func run(
        seed: UInt64, canary: SimulatedVolume.Canary? = nil, trace: Bool = false
    ) throws -> Outcome {
        var simulation = LogSimulation(seed: seed, canary: canary, trace: trace)
        try simulation.live()
        return simulation.outcome
    }

    func failure(_ what: String) -> SimulationFailure { SimulationFailure(seed: seed, step: step, what: what) }

    func say(_ what: @autoclosure () -> String) {
        if trace { print("\(step): \(what())") }
    }

    var options: EmbeddedLog.Options {
        var options = EmbeddedLog.Options()
        options.hasThreads = false
        options.segmentSize = [1500, 4000, 12_000][Int(seed % 3)]
        options.partitionFileSize = [900, 3000][Int(seed / 3 % 2)]
        options.rewriting.joined = [300, 2000][Int(seed / 6 % 2)]
        options.rewriting.verbatim = 700
        options.segmentAge = 900
        options.compactionKeys = seed % 5 == 0 ? 12 : 1000
        let clock = clock
        options.wallClock = { Instant(milliseconds: clock.withLock { $0 }) }
        options.uptime = { clock.withLock { $0 } }
        return options
    }

    mutating func live() throws {
        try start()
        for number in 1...LogSimulation.steps {
            step = number
            clock.withLock { $0 += Int64.random(in: 0...20, using: &random) }
            do {
                try act()
            } catch let error as EventLogError {
                guard volume.isDown || log?.statistics.stopped != nil else {
                    throw failure("an unexpected error: \(error)")
                }
            }
            try collect()
            if volume.isDown {
                try crash()
            } else if log?.statistics.stopped != nil {
                try restart(afterCrash: Bool.random(using: &random))
            }
        }
        step += 1
        try restart(afterCrash: Bool.random(using: &random))
        try check(verifies: true)
        if seed % 4 == 0 { try rot() }
    }

    // MARK: Acting

    mutating func act() throws {
        guard let log else { throw failure("there is no log") }
        switch Int.random(in: 0..<40, using: &random) {
        case 0..<16: try offer(log)
        case 16..<18: try batch(log)
        case 18..<28:
            say("commit")
            log.commitReady()
        case 28..<31:
            say("maintain")
            let all = Bool.random(using: &random)
            do {
                try log.maintain(compactsAll: all)
            } catch {
                // A fault in the upkeep leaves the log as it is; the next pass goes on.
                guard
                    ["write-failed", "disk-full", "sync-failed", "read-failed", "no-such-file", "upkeep-stopped"]
                        .contains(error.code)
                else { throw error }
                upkeepFailed = true
                say("upkeep failed: \(error)")
            }
            try noteStarts(log)
        case 31: try trim(log)
        case 32:
            let within = Int.random(in: 1...60, using: &random)
            say("the power goes within \(within) operations")
            volume.crash(within: within)
        case 33:
            say("crash")
            try crash()
        case 34: try restart(afterCrash: false)
        case 35:
            // Some disks fail now and then for a while.
            var faults = SimulatedVolume.Faults.none
            switch Int.random(in: 0..<4, using: &random) {
            case 0: faults.write = 30
            case 1: faults.sync = 30
            case 2: faults.full = 30
            default:
                // Seeds below were kept before reads failed, and shall go on living the lives that they were kept for.
                if seed >= LogSimulation.readsFailFrom { faults.read = 30 }
            }
            say("faults \(faults)")
            volume.set(faults)
        case 36: clock.withLock { $0 += 1000 }
        default: try peek(log)
        }
    }

    mutating func event(_ topic: String) -> (LogModel.Event, NewEvent) {
        nextToken += 1
        let key: String? = topic == "table" ? "k\(Int.random(in: 0..<6, using: &random))" : nil
        let isTombstone = topic == "table" && Int.random(in: 0..<5, using: &random) == 0
        let time = Int64.random(in: 0..<10_000, using: &random)
        let event = LogModel.Event(token: nextToken, key: key, isTombstone: isTombstone, time: time)
        let padding = String(repeating: "x", count: Int.random(in: 0..<120, using: &random))
        return (
            event,
            NewEvent(
                id: "t\(nextToken)", source: "s", type: "t", time: Instant(milliseconds: time),
                key: key.map { [UInt8]($0.utf8) }, data: isTombstone ? nil : [UInt8]("\(nextToken) \(padding)".utf8))
        )
    }

    /// Offers an append of events; some of them again, some with an expected offset.
    mutating func offer(_ log: EmbeddedLog) throws {
        var events: [(topic: String, partition: Int?, event: NewEvent)] = []
        var plan: [(partition: TopicPartition?, topic: String, event: LogModel.Event)] = []
        for _ in 0..<Int.random(in: 1...6, using: &random) {
            let topic = ["events", "events", "table", "brief"][Int.random(in: 0..<4, using: &random)]
            if topic == "events", Int.random(in: 0..<6, using: &random) == 0,
                let known = model.places.filter({ $0.value.partition.topic == "events" }).keys.sorted().randomElement(
                    using: &random), let place = model.places[known],
                let event = model.events[place.partition]?[place.offset],
                !plan.contains(where: { $0.event.token == known })
            {
                // The key chooses the partition; without one the id does.
                events.append(
                    (
                        topic, nil,
                        NewEvent(
                            id: "t\(known)", source: "s", type: "t", time: Instant(milliseconds: event.time),
                            data: [UInt8]("\(known) ".utf8))
                    ))
                plan.append((nil, topic, event))
                continue
            }
            let (event, new) = event(topic)
            events.append((topic, nil, new))
            plan.append((nil, topic, event))
        }
        nextAppend += 1
        let number = nextAppend
        var expected: [TopicPartition: Int64] = [:]
        let table = TopicPartition("table", 0)
        let conflicts: Bool?
        if Int.random(in: 0..<6, using: &random) == 0, plan.contains(where: { $0.topic == "table" }),
            offered.isEmpty, model.relaxed.isEmpty
        {
            let end = try log.offsets(table).upperBound
            let wrong = Bool.random(using: &random)
            expected[table] = wrong ? end + 1 : end
            conflicts = wrong
        } else {
            conflicts = nil
        }
        let durability: Durability = Int.random(in: 0..<4, using: &random) == 0 ? .relaxed : .synced
        offered[number] = (LogModel.Pending(number: number, events: plan), durability)
        say("offer \(number): \(plan.map(\.event.token)) \(durability)")
        let inbox = inbox
        log.append(
            LogAppend(principal: "p", events: events, durability: durability, expected: expected)
        ) { result in
            inbox.withLock { $0.append((number, result.map(\.events))) }
        }
        if let conflicts, log.statistics.stopped == nil {
            let refusal = inbox.withLock { answers in
                answers.lazy.compactMap { answer -> String? in
                    guard case .failure(let error) = answer.1, answer.0 == number else { return nil }
                    return error.code
                }.first
            }
            // Ids that cannot be read refuse an append before its expectations are looked at.
            guard refusal != "ids-damaged" else { return }
            let refused = refusal == "offset-conflict"
            guard refused == conflicts else {
                throw failure("an expected offset was \(refused ? "refused" : "taken") wrongly")
            }
            if refused {
                inbox.withLock { $0.removeAll { $0.0 == number } }
                offered[number] = nil
            }
        }
    }

    /// A batch of an idempotent producer, now and then the same again.
    mutating func batch(_ log: EmbeddedLog) throws {
        let partition = TopicPartition("plain", 0)
        if producer == nil {
            do {
                producer = (try log.registerProducer(named: "p\(seed)"), 0, [])
            } catch {
                // Ids that cannot be read refuse every append that asks for them.
                guard error.code == "ids-damaged" else { throw error }
                return
            }
            try collect()
            // The registration is an event of its own topic.
            return
        }
        guard var current = producer else { return }
        if let again = current.last.randomElement(using: &random), Int.random(in: 0..<3, using: &random) == 0,
            let place = model.places[again.token]
        {
            let box = Monitor<Result<BatchReceipt, EventLogError>?>(nil)
            log.append(BatchAppend(principal: "p", partition: partition, batch: again.batch)) { result in
                box.withLock { $0 = result }
            }
            log.commitReady()
            switch box.withLock({ $0 }) {
            case .success(let receipt)?:
                guard receipt.duplicate, receipt.position.offset == place.offset else {
                    throw failure("a repeated batch at \(place.offset) was answered with \(receipt)")
                }
            case .failure(let error)?:
                guard error.code == "log-stopped" else { throw failure("a repeated batch was refused: \(error)") }
            case nil: throw failure("a batch has no answer")
            }
            return
        }
        nextToken += 1
        nextAppend += 1
        let event = LogModel.Event(token: nextToken, key: nil, isTombstone: false, time: 5)
        var builder = RecordBatchBuilder()
        let text = [UInt8]("\(nextToken) ".utf8)
        text.withUnsafeBytes { builder.append(key: nil, value: $0, time: 5) }
        let stamp = ProducerStamp(id: current.identity.id, epoch: current.identity.epoch, sequence: current.next)
        let encoded = builder.finish(producer: stamp)
        let number = nextAppend
        offered[number] = (
            LogModel.Pending(number: number, events: [(partition, "plain", event)]), .synced
        )
        let inbox = inbox
        say("batch \(number): token \(nextToken), sequence \(current.next)")
        log.append(BatchAppend(principal: "p", partition: partition, batch: encoded)) { result in
            inbox.withLock {
                $0.append((number, result.map { [EventReceipt(position: $0.position, duplicate: $0.duplicate)] }))
            }
        }
        log.commitReady()
        current.last.append((current.next, nextToken, encoded))
        if current.last.count > 5 { current.last.removeFirst() }
        current.next += 1
        producer = current
    }

    mutating func trim(_ log: EmbeddedLog) throws {
        let partition = TopicPartition("events", Int.random(in: 0..<2, using: &random))
        let range = try log.offsets(partition)
        guard !range.isEmpty else { return }
        let offset = Int64.random(in: range, using: &random)
        say("trim \(partition) before \(offset)")
        if Bool.random(using: &random) {
            do {
                try log.pin(Pin(name: "pin", ranges: [partition: range.lowerBound..<range.upperBound]))
            } catch { return try tolerate(error) }
            do {
                try log.trim(partition, before: range.upperBound)
                throw failure("a pinned range was trimmed")
            } catch let error as EventLogError {
                guard error.code == "pinned" || volume.isDown else { throw failure("a pin was answered with \(error)") }
            }
            do { try log.unpin("pin") } catch { return try tolerate(error) }
        }
        do { try log.trim(partition, before: offset) } catch { try tolerate(error) }
        try noteStarts(log)
    }

    func tolerate(_ error: EventLogError) throws {
        guard
            [
                "write-failed", "read-failed", "disk-full", "sync-failed", "power-failure", "pinned", "upkeep-stopped",
            ].contains(error.code)
        else { throw error }
    }

    /// Only forward: what was readable may be trimmed, what was trimmed stays so.
    mutating func noteStarts(_ log: EmbeddedLog) throws {
        for layout in LogSimulation.topics {
            for number in 0..<layout.partitions {
                let partition = TopicPartition(layout.name, number)
                let start = try log.offsets(partition).lowerBound
                model.starts[partition] = max(model.starts[partition] ?? 0, start)
            }
        }
    }

    /// Takes the answers to appends in.
    mutating func collect() throws {
        let answers = inbox.withLock { list in
            defer { list = [] }
            return list
        }
        for (number, result) in answers {
            guard let (append, durability) = offered.removeValue(forKey: number) else {
                throw failure("append \(number) was answered twice")
            }
            switch result {
            case .failure(let error):
                guard ["log-stopped", "ids-damaged"].contains(error.code) else {
                    throw failure("append \(number) was refused: \(error)")
                }
                say("append \(number) failed: \(error.code)")
                model.ambiguous.append(append)
            case .success(let receipts):
                guard receipts.count == append.events.count else { throw failure("receipts are missing") }
                outcome.appends += 1
                for (receipt, (_, _, event)) in zip(receipts, append.events) {
                    let partition = TopicPartition(receipt.position.topic, receipt.position.partition)
                    if receipt.duplicate {
                        guard let place = model.places[event.token], place.offset == receipt.position.offset,
                            place.partition == partition
                        else {
                            throw failure("token \(event.token) is no duplicate of \(receipt.position)")
                        }
                        continue
                    }
                    outcome.events += 1
                    if let known = model.places[event.token] {
                        throw failure("token \(event.token) stands at \(known) and again at \(receipt.position)")
                    }
                    if let wrong = model.acknowledge(
                        event, partition, receipt.position.offset, receipt.position.sequence,
                        relaxed: durability == .relaxed ? append : nil)
                    {
                        throw failure(wrong)
                    }
                }
            }
        }
        if let log { model.settle(below: log.statistics.events) }
    }
}
