import Base
import EventLog
import Foundation
import RecordFormat
import Simulation
import Testing

/// One log on a disk whose failures are chosen, where the simulation chooses at random.
@Suite struct FailingDiskTests {
    private let volume = SimulatedVolume(seed: 5)
    private let layout = TopicLayout(name: "t", partitions: 1)
    private let uptime = Monitor<Int64>(0)

    private func open() throws -> EmbeddedLog {
        var options = EmbeddedLog.Options()
        options.hasThreads = false
        options.segmentSize = 8000
        options.partitionFileSize = 3000
        let uptime = uptime
        options.uptime = { uptime.withLock { $0 } }
        let log = try EmbeddedLog.open(volume, options: options)
        try log.declare(layout)
        return log
    }

    /// The code of the failure, or nil when the events were acknowledged.
    private func add(_ log: EmbeddedLog, _ numbers: Range<Int>) -> String? {
        let answer = Monitor<Result<AppendReceipt, EventLogError>?>(nil)
        let events = numbers.map { ("t", Int?(0), EmbeddedLogTests.event("e\($0)")) }
        log.append(LogAppend(principal: "p", events: events)) { result in answer.withLock { $0 = result } }
        log.commitReady()
        if case .failure(let error)? = answer.withLock({ $0 }) { return error.code }
        return answer.withLock { $0 } == nil ? "unanswered" : nil
    }

    private func ids(_ log: EmbeddedLog) throws -> [String] {
        var found: [String] = []
        try log.forEachEvent(TopicPartition("t", 0)) { event in
            found.append(event.id)
            return true
        }
        return found
    }

    /// A sync that failed once may have lost what it was to bring to the disk, and the next one would not tell: nothing is
    /// written any more until the log is opened anew, also when the disk is well again.
    @Test(arguments: ["sync", "write", "full"]) func aFailedWriteStopsTheWriterForGood(what: String) throws {
        var log = try open()
        #expect(add(log, 0..<5) == nil)
        var faults = SimulatedVolume.Faults.none
        switch what {
        case "sync": faults.sync = 1000
        case "write": faults.write = 1000
        default: faults.full = 1000
        }
        volume.set(faults)
        #expect(add(log, 5..<7) == "log-stopped")
        volume.set(.none)
        #expect(add(log, 7..<9) == "log-stopped")
        let cause = ["sync": "sync-failed", "write": "write-failed", "full": "disk-full"][what] ?? ""
        #expect(log.statistics.stopped?.description.contains(cause) == true, "\(String(describing: log.stopped))")
        #expect(try ids(log) == (0..<5).map { "e\($0)" }, "reads go on")
        log.close()
        log = try open()
        // What was not acknowledged may be there or not; what was is.
        let found = try ids(log)
        #expect(found.starts(with: (0..<5).map { "e\($0)" }) && found.count <= 7)
        #expect(add(log, 7..<9) == nil)
        #expect(try log.verify().isIntact)
        log.close()
    }

    /// Opening reads what was written since the last segment was sealed, however long the log is, also after a kill.
    @Test func aKilledLogReadsItsTailAlone() throws {
        var log = try open()
        for start in stride(from: 0, to: 600, by: 5) { #expect(add(log, start..<start + 5) == nil) }
        try log.maintain()
        for start in stride(from: 600, to: 620, by: 5) { #expect(add(log, start..<start + 5) == nil) }
        let open = try #require(log.inspect().segments.last)
        // Not closed: as a kill leaves it.
        log = try self.open()
        #expect(log.recovery.scannedBytes <= open.bytes && log.recovery.scannedBytes > 0)
        #expect(log.statistics.bytesWritten == 0 && log.recovery.events == 620)
        #expect(try ids(log).count == 620)
        log.close()
    }

    /// A bad sector in a file of ids: where the events still stand it is made anew from them; where they do not, appends that
    /// need it are refused for a while, and then what it held is given up, and told.
    @Test(arguments: [false, true]) func aBadSectorInIdsRefusesNothingForEver(isCompacted: Bool) throws {
        let table = TopicLayout(name: "table", partitions: 1, isCompacted: isCompacted)
        let log = try open()
        try log.declare(table)
        func put(_ number: Int) -> Result<Bool, EventLogError> {
            let answer = Monitor<Result<Bool, EventLogError>?>(nil)
            let event = NewEvent(
                id: "a\(number)", source: "s", type: "t", time: Instant(milliseconds: 1), key: [UInt8]("k".utf8),
                data: [UInt8]("\(number)".utf8))
            log.append(LogAppend(principal: "p", events: [("table", 0, event)])) { result in
                answer.withLock { $0 = result.map { $0.events[0].duplicate } }
            }
            log.commitReady()
            return answer.withLock { $0 } ?? .success(false)
        }
        func known(_ number: Int) -> Bool? { try? put(number).get() }
        for number in 0..<20 { #expect(known(number) == false) }
        for start in stride(from: 0, to: 200, by: 5) { #expect(add(log, start..<start + 5) == nil) }
        try log.maintain(compactsAll: true)
        volume.spoil(try #require(try volume.list().first { $0.hasSuffix(".ids") }))
        if !isCompacted {
            // Whoever meets it first is refused, and may come again.
            #expect(known(3) == nil)
            try log.maintain()
            #expect(known(3) == true && known(19) == true && log.statistics.lostIdentifiers.isEmpty)
            #expect(try log.verify().isIntact)
            return log.close()
        }
        for _ in 0..<5 {
            if case .failure(let error) = put(3) { #expect(error.code == "ids-damaged") } else { Issue.record("known") }
            #expect(throws: EventLogError.self) { try log.maintain() }
            #expect(log.statistics.lostIdentifiers.isEmpty)
        }
        #expect(try !log.verify().unreadable.isEmpty)
        uptime.withLock { $0 += 60_000 }
        try log.maintain()
        #expect(known(3) == false && known(19) == true)
        #expect(log.statistics.lostIdentifiers.map(\.count) == [19])
        log.close()
    }

    /// What a log cannot read while it is opened it neither cuts off nor forgets.
    @Test(arguments: ["durable.mark", ".wal"]) func anOpeningThatCannotReadChangesNothing(what: String) throws {
        var log = try open()
        for start in stride(from: 0, to: 60, by: 5) { #expect(add(log, start..<start + 5) == nil) }
        log = try open()
        let path = try #require(try volume.list().last { $0.hasSuffix(what) })
        volume.spoil(path)
        // Without the mark everything is found by scanning; without the segment the mark says where the log ends.
        log = try open()
        #expect(log.recovery.truncatedBytes == 0 && log.recovery.damaged.isEmpty == (what == "durable.mark"))
        volume.heal(path)
        log = try open()
        #expect(try ids(log).count == 60 && log.recovery.damaged.isEmpty)
        #expect(try log.verify().isIntact)
        log.close()
    }

    /// Ids of events that compaction took stand in their file alone. When it goes they are lost, and that is told: when the
    /// log is opened, and by every verification after it.
    @Test(arguments: ["gone", "rotten", "unreadable"]) func lostIdsAreTold(how: String) throws {
        let table = TopicLayout(name: "table", partitions: 1, isCompacted: true)
        var log = try open()
        try log.declare(table)
        func put(_ number: Int) -> Bool? {
            let answer = Monitor<Bool?>(nil)
            let event = NewEvent(
                id: "a\(number)", source: "s", type: "t", time: Instant(milliseconds: 1), key: [UInt8]("k".utf8),
                data: [UInt8]("\(number)".utf8))
            log.append(LogAppend(principal: "p", events: [("table", 0, event)])) { result in
                answer.withLock { $0 = try? result.get().events[0].duplicate }
            }
            log.commitReady()
            return answer.withLock { $0 }
        }
        for number in 0..<20 { #expect(put(number) == false) }
        for start in stride(from: 0, to: 200, by: 5) { #expect(add(log, start..<start + 5) == nil) }
        try log.maintain(compactsAll: true)
        #expect(put(3) == true, "known although it was compacted")
        #expect(try log.verify().isIntact)
        log.close()
        let path = try #require(try volume.list().first { $0.hasSuffix(".ids") })
        switch how {
        case "gone": try volume.remove(path)
        case "rotten": try volume.open(path, .write).write([UInt8](repeating: 7, count: 64), at: 0)
        default: break
        }
        if how == "unreadable" {
            // For a moment: nothing is made anew from less, and nothing is lost.
            log = try open()
            try log.declare(table)
            var faults = SimulatedVolume.Faults.none
            faults.read = 1000
            volume.set(faults)
            try? log.maintain()
            volume.set(.none)
            try log.maintain()
            #expect(put(3) == true && log.statistics.lostIdentifiers.isEmpty)
            log.close()
            return
        }
        for _ in 0..<2 {
            log = try open()
            try log.declare(table)
            let check = try log.verify()
            #expect(check.damaged.isEmpty && !check.isIntact)
            #expect(check.lostIdentifiers.first?.file == path && (check.lostIdentifiers.first?.count ?? 0) >= 19)
            log.close()
        }
        log = try open()
        try log.declare(table)
        // Those that still stand are known by the rebuilt file.
        #expect(put(19) == true && put(3) == false)
        log.close()
    }
}
