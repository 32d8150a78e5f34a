import Base
import EventLog
import RecordFormat

extension LogSimulation {
    // MARK: Looking

    private static func token(_ event: StoredEvent) -> LogModel.Event? {
        let key = event.key.map { String(decoding: $0, as: UTF8.self) }
        let time = event.time.milliseconds
        if let data = event.data {
            guard let token = Int(String(decoding: data.prefix { $0 != 0x20 }, as: UTF8.self)) else { return nil }
            return LogModel.Event(token: token, key: key, isTombstone: false, time: time)
        }
        guard let token = Int(event.id.dropFirst()) else { return nil }
        return LogModel.Event(token: token, key: key, isTombstone: true, time: time)
    }

    func contents(_ log: EmbeddedLog) throws -> [TopicPartition: [Int64: LogModel.Event]] {
        var found: [TopicPartition: [Int64: LogModel.Event]] = [:]
        for layout in LogSimulation.topics {
            for number in 0..<layout.partitions {
                let partition = TopicPartition(layout.name, number)
                var last: Int64 = -1
                do {
                    try log.forEachEvent(partition) { event in
                        guard event.offset > last, let read = LogSimulation.token(event) else {
                            throw failure("\(partition)@\(event.offset) stands behind \(last), or makes no sense")
                        }
                        last = event.offset
                        found[partition, default: [:]][event.offset] = read
                        return true
                    }
                } catch let error as EventLogError {
                    throw failure("\(partition) cannot be read: \(error)")
                }
            }
        }
        return found
    }

    mutating func check(verifies: Bool) throws {
        guard let log else { return }
        guard log.recovery.damaged.isEmpty else { throw failure("damage without rot: \(log.recovery.damaged)") }
        try noteStarts(log)
        if let wrong = model.compare(try contents(log), compacted: LogSimulation.compacted) { throw failure(wrong) }
        guard verifies else { return }
        let verification = try log.verify()
        guard verification.isIntact else {
            throw failure(
                "verify: \(verification.damaged) \(verification.rewritten) \(verification.lostIdentifiers) \(verification.unreadable)"
            )
        }
    }

    /// Looks something up while the log is running.
    mutating func peek(_ log: EmbeddedLog) throws {
        try collect()
        let partition = TopicPartition("events", Int.random(in: 0..<2, using: &random))
        let time = Int64.random(in: 0..<10_000, using: &random)
        let range = try log.offsets(partition)
        let found: Int64
        do {
            found = try log.offset(partition, atOrAfter: Instant(milliseconds: time))
        } catch {
            // A disk that fails is said so, and nothing is made up.
            guard error.code == "read-failed" else { throw error }
            return
        }
        // Relaxed events are seen once they are on disk.
        let visible = (model.events[partition] ?? [:]).filter { range.contains($0.key) }
        let expected = visible.filter { $0.value.time >= time }.keys.min() ?? range.upperBound
        guard found == expected else {
            throw failure("the first offset of \(partition) at or after \(time) is \(expected), not \(found)")
        }
    }

    /// A bit flips on the disk at rest: everything else stays readable, and the damage is told.
    mutating func rot() throws {
        log?.close()
        try collect()
        log = nil
        guard let name = volume.rot() else { return }
        outcome.rotten += 1
        say("a bit flipped in \(name)")
        let log: EmbeddedLog
        do {
            log = try EmbeddedLog.open(volume, options: options)
        } catch {
            throw failure("a bit flipped in \(name), and the log does not open: \(error)")
        }
        for layout in LogSimulation.topics { try log.declare(layout) }
        var lost = 0
        for (partition, list) in model.events.sorted(by: { $0.key < $1.key }) {
            for (offset, event) in list.sorted(by: { $0.key < $1.key }) where offset >= model.starts[partition] ?? 0 {
                do {
                    let batch = try log.read(partition, from: offset, maxBytes: 1).first
                    let read = batch.flatMap { batch in
                        batch.records.firstIndex { $0.offset == offset }.flatMap {
                            LogSimulation.token(StoredEvent(batch: batch, index: $0))
                        }
                    }
                    if read == nil, LogSimulation.compacted.contains(partition.topic),
                        model.mayBeCompacted(partition, offset)
                    {
                        continue
                    }
                    if read == nil, offset >= (try log.offsets(partition).upperBound) {
                        // The end of the log is gone; opening it told.
                        lost += 1
                        continue
                    }
                    guard read == event else {
                        throw failure(
                            "a bit flipped in \(name): \(partition)@\(offset) gives \(String(describing: read)) and no error"
                        )
                    }
                } catch let error as EventLogError {
                    guard error.code == "rot" else { throw failure("a bit flipped in \(name): \(error)") }
                    lost += 1
                }
            }
        }
        let verification = try log.verify()
        let isNoticed = !verification.isIntact || !log.recovery.damaged.isEmpty
        guard lost == 0 || isNoticed else {
            throw failure("a bit flipped in \(name): \(lost) events are lost in silence")
        }
        let derived = name.hasSuffix(".index") || name.hasSuffix(".ids") || name.hasPrefix("manifest")
        guard !derived || lost == 0 else {
            throw failure("a bit flipped in \(name), derived, and \(lost) events are lost")
        }
        let isContent = (name.hasSuffix(".log") && !upkeepFailed) || name.hasSuffix(".wal") || name.hasSuffix(".chain")
        guard !isContent || isNoticed else { throw failure("a bit flipped in \(name) and nothing noticed") }
        try offerAgain(log, after: name, isNoticed: isNoticed)
        log.close()
    }

    /// What comes again is known, or it was told that it no longer can be.
    private func offerAgain(
        _ log: EmbeddedLog, after name: String, isNoticed: Bool, isMended: Bool = false
    ) throws {
        for (token, place) in model.places.sorted(by: { $0.key < $1.key }) where place.partition.topic != "plain" {
            let box = Monitor<Result<[EventReceipt], EventLogError>?>(nil)
            let event = NewEvent(
                id: "t\(token)", source: "s", type: "t", time: Instant(milliseconds: 1), key: [UInt8]("k".utf8),
                data: [UInt8]("\(token) again".utf8))
            let append = LogAppend(
                principal: "p", events: [(place.partition.topic, place.partition.partition, event)])
            log.append(append) { result in box.withLock { $0 = result.map(\.events) } }
            log.commitReady()
            switch box.withLock({ $0 }) {
            case .success(let receipts)?:
                guard receipts.first?.duplicate == true || isNoticed else {
                    throw failure("a bit flipped in \(name): the id of token \(token) is forgotten in silence")
                }
            case .failure(let error)?:
                guard error.code == "ids-damaged", !isMended else {
                    throw failure("token \(token) was refused: \(error)")
                }
                // Met while looking it up: it is built again, and then it is known or told.
                try log.maintain()
                let isTold = !log.statistics.lostIdentifiers.isEmpty
                return isTold ? () : try offerAgain(log, after: name, isNoticed: isNoticed, isMended: true)
            case nil: throw failure("token \(token) has no answer")
            }
        }
    }
}
