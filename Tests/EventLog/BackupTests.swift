import Base
import EventLog
import Foundation
import RecordFormat
import Testing

/// What a backup may be written over, what may be restored, and what verification says of files that are gone.
@Suite struct BackupTests {
    private let scratch: ScratchDirectory

    init() throws { scratch = try ScratchDirectory() }

    /// A log with so many appends of two events each.
    private func grow(_ name: String, _ ids: Range<Int>, prefix: String = "e") throws {
        let log = try EmbeddedLogTests.open(scratch.path + "/" + name)
        defer { log.close() }
        for id in ids {
            let events = (0..<2).map { ("t", Int?.none, EmbeddedLogTests.event("\(prefix)\(id)-\($0)")) }
            try log.declare(TopicLayout(name: "t", partitions: 1))
            _ = try log.append(LogAppend(principal: "p", events: events))
        }
    }

    private func backup(_ name: String, to target: String) throws -> BackupReport {
        let log = try EmbeddedLogTests.open(scratch.path + "/" + name)
        defer { log.close() }
        return try log.backup(to: DiskVolume(scratch.path + "/" + target))
    }

    private func restore(_ backup: String, to target: String) throws -> LogVerification {
        try EmbeddedLog.restore(
            from: DiskVolume(scratch.path + "/" + backup), to: DiskVolume(scratch.path + "/" + target)
        ).verification
    }

    /// A log that went on differently from where a backup was taken must not be written over it.
    @Test func onlyItsOwnBackupIsWrittenOver() throws {
        try grow("a", 0..<10)
        #expect(try backup("a", to: "backup").events == 20)
        #expect(try restore("backup", to: "b").isIntact)
        try grow("a", 10..<12)
        try grow("b", 10..<14, prefix: "other")
        #expect(errorCode { _ = try backup("b", to: "backup2") } == nil)
        #expect(try backup("a", to: "backup").events == 24)
        #expect(errorCode { _ = try backup("b", to: "backup") } == "bad-backup")
        // Longer than the backup, with another event where the backup ends.
        #expect(errorCode { _ = try backup("a", to: "backup2") } == "bad-backup")
        try grow("a", 12..<20)
        #expect(try backup("a", to: "backup").events == 40)
        #expect(try restore("backup", to: "c").events == 40)
    }

    /// A batch that is rotten in the files is told when it is copied, with its place, and what is sound goes with it.
    @Test(arguments: ["byte", "length"]) func rotIsToldWhenItIsCopied(what: String) throws {
        let log = try EmbeddedLogTests.open(scratch.path + "/a", segmentSize: 4000)
        try log.declare(TopicLayout(name: "t", partitions: 1))
        for id in 0..<200 {
            _ = try log.append(LogAppend(principal: "p", events: [("t", nil, EmbeddedLogTests.event("e\(id)"))]))
        }
        try log.maintain()
        let clean = try log.backup(to: DiskVolume(scratch.path + "/clean"))
        #expect(clean.damaged.isEmpty && clean.events == 200)
        log.close()
        let folder = scratch.path + "/a/t-0"
        let name = try #require(
            FileManager.default.contentsOfDirectory(atPath: folder).filter { $0.hasSuffix(".log") }.min())
        var bytes = try Data(contentsOf: URL(filePath: "\(folder)/\(name)"))
        bytes[what == "byte" ? RecordBatchLayout.headerSize + 7 : RecordBatchLayout.length] ^= 0x80
        try bytes.write(to: URL(filePath: "\(folder)/\(name)"))
        let report = try backup("a", to: "backup")
        let found = try #require(report.damaged.first)
        #expect(report.damaged.count == 1 && found.file == "t-0/\(name)" && found.from == 0, "\(report.damaged)")
        if what == "byte" { #expect(found.lost?.offsets.lowerBound == 0 && found.to < Int64(bytes.count)) }
        let again = try backup("a", to: "backup")
        #expect(again.copiedBytes == 0 && again.damaged.isEmpty && again.earlier == [found.description])
        let copy = try FileManager.default.contentsOfDirectory(atPath: scratch.path + "/backup/t-0")
        #expect(copy.contains { $0.hasSuffix(".index") } && copy.contains(name))
    }

    /// What is damaged is taken from a backup where it has it, and from nothing else: another log's bytes are given back.
    @Test(arguments: [
        "log byte", "log end", "log gone", "chain byte", "chain gone", "wal byte", "wal gone", "ids gone", "manifests",
        "chain and log", "other log", "same rot", "other rot",
    ])
    func damageIsHealedFromABackup(what: String) throws {
        let log = try EmbeddedLogTests.open(scratch.path + "/a", segmentSize: 4000)
        try log.declare(TopicLayout(name: "t", partitions: 1))
        func publish(_ ids: Range<Int>, _ log: EmbeddedLog) throws {
            for id in ids {
                _ = try log.append(LogAppend(principal: "p", events: [("t", nil, EmbeddedLogTests.event("e\(id)"))]))
            }
        }
        try publish(0..<200, log)
        try log.maintain()
        try publish(200..<203, log)
        if what != "other log" { _ = try log.backup(to: DiskVolume(scratch.path + "/backup")) }
        let head = try log.verify().head
        try publish(203..<206, log)
        log.close()
        if what == "other log" {
            let other = try EmbeddedLogTests.open(scratch.path + "/b", segmentSize: 4000)
            try other.declare(TopicLayout(name: "t", partitions: 1))
            for id in 0..<200 {
                _ = try other.append(LogAppend(principal: "q", events: [("t", nil, EmbeddedLogTests.event("o\(id)"))]))
            }
            try other.maintain()
            _ = try other.backup(to: DiskVolume(scratch.path + "/backup"))
            other.close()
        }
        let volume = DiskVolume(scratch.path + "/a")
        let end =
            [("chain", ".chain"), ("wal", ".wal"), ("ids", ".ids"), ("manifests", "manifest")].first {
                what.hasPrefix($0.0)
            }?.1 ?? ".log"
        let path = scratch.path + "/a/" + (try #require(volume.list().first { $0.hasSuffix(end) }))
        let sound = try Data(contentsOf: URL(filePath: path))
        var bytes = sound
        switch what {
        case "log end": bytes.removeLast(40)
        case "log gone": bytes = Data()
        default: bytes[bytes.count / 2 - (what == "wal byte" ? bytes.count / 4 : 0)] ^= 0x10
        }
        if what == "ids gone" {
            // With its chain gone as well, ids are nowhere else.
            let chain = path.replacingOccurrences(of: ".ids", with: ".chain")
            try FileManager.default.removeItem(atPath: chain)
        }
        if what == "chain and log" {
            // What is rotten behind a rotten chain is seen when the chain is whole again.
            let name = try #require(volume.list().first { $0.hasSuffix(".log") })
            var log = try Data(contentsOf: URL(filePath: "\(scratch.path)/a/\(name)"))
            log[log.count / 2] ^= 0x04
            try log.write(to: URL(filePath: "\(scratch.path)/a/\(name)"))
        }
        if what == "manifests" {
            try Data("none".utf8).write(to: URL(filePath: path + ".copy"))
        }
        if what.hasSuffix("gone") {
            try FileManager.default.removeItem(atPath: path)
        } else {
            try bytes.write(to: URL(filePath: path))
        }
        if what == "other rot" {
            // One large rot in the backup where two small ones are here: neither is better than the other as a whole, and the
            // places that are damaged here are sound there.
            var there = sound
            for at in stride(from: 70, to: 400, by: 7) { there[at] ^= 0x11 }
            bytes[bytes.count - 20] ^= 0x01
            try bytes.write(to: URL(filePath: path))
            try there.write(to: URL(filePath: path.replacingOccurrences(of: "/a/", with: "/backup/")))
        }
        if what == "same rot" {
            try bytes.write(to: URL(filePath: path.replacingOccurrences(of: "/a/", with: "/backup/")))
        }
        let before = try? Data(contentsOf: URL(filePath: path))
        let tried = try? EmbeddedLog.heal(volume, from: DiskVolume(scratch.path + "/backup"), dryRun: true)
        #expect((try? Data(contentsOf: URL(filePath: path))) == before, "what is only tried changes nothing")
        let report: HealingReport
        do {
            report = try EmbeddedLog.heal(volume, from: DiskVolume(scratch.path + "/backup"))
        } catch {
            #expect(what == "other log" && error.code == "bad-backup", "\(error)")
            #expect(try Data(contentsOf: URL(filePath: path)) == bytes)
            return
        }
        #expect(
            tried?.healed == report.healed && tried?.bytes == report.bytes
                && tried?.verification.isIntact == report.verification.isIntact, "\(String(describing: tried))")
        let now = try Data(contentsOf: URL(filePath: path))
        if what == "other log" || what == "same rot" {
            #expect(!report.verification.isIntact && report.healed.isEmpty && report.bytes == 0 && now == bytes)
        } else {
            if what == "wal gone" {
                // As far as the backup has it.
                #expect(!report.healed.isEmpty && report.verification.events == 203 && report.verification.head == head)
                return
            }
            #expect(report.verification.isIntact && !report.healed.isEmpty && now == sound, "\(report)")
            #expect(report.verification.events == 206 && report.verification.head != head)
        }
    }

    /// What is rotten in the WAL or in the chain is told by the backup that copies it, once.
    @Test(arguments: [".wal", ".chain"]) func everythingIsLookedAtWhenItIsCopied(end: String) throws {
        let log = try EmbeddedLogTests.open(scratch.path + "/a", segmentSize: 4000)
        try log.declare(TopicLayout(name: "t", partitions: 1))
        for id in 0..<200 {
            _ = try log.append(LogAppend(principal: "p", events: [("t", nil, EmbeddedLogTests.event("e\(id)"))]))
        }
        try log.maintain()
        for id in 200..<206 {
            _ = try log.append(LogAppend(principal: "p", events: [("t", nil, EmbeddedLogTests.event("e\(id)"))]))
        }
        let name = try #require(DiskVolume(scratch.path + "/a").list().last { $0.hasSuffix(end) })
        let handle = try #require(FileHandle(forUpdatingAtPath: "\(scratch.path)/a/\(name)"))
        try handle.seek(toOffset: 300)
        try handle.write(contentsOf: Data([0x5A, 0xA5, 0x5A]))
        try handle.close()
        let report = try log.backup(to: DiskVolume(scratch.path + "/backup"))
        #expect(report.damaged.count == 1 && report.damaged.first?.file == name, "\(report.damaged)")
        #expect(report.damaged.first?.isProofAlone == (end == ".chain"))
        let again = try log.backup(to: DiskVolume(scratch.path + "/backup"))
        #expect(again.damaged.isEmpty && again.earlier == report.damaged.map(\.description))
        log.close()
    }

    /// A backup of a log that has the same beginning and went on differently gives nothing of what differs.
    @Test func aBackupThatWentOnDifferentlyHealsNothingOfIt() throws {
        try grow("a", 0..<50)
        _ = try backup("a", to: "first")
        #expect(try restore("first", to: "b").isIntact)
        try grow("b", 50..<70, prefix: "other")
        try grow("a", 50..<80)
        _ = try backup("a", to: "second")
        let name = try #require(DiskVolume(scratch.path + "/b").list().first { $0.hasSuffix(".wal") })
        let sound = try Data(contentsOf: URL(filePath: "\(scratch.path)/b/\(name)"))
        func rot(_ place: Int) throws -> Data {
            var bytes = sound
            bytes[place] ^= 0x10
            try bytes.write(to: URL(filePath: "\(scratch.path)/b/\(name)"))
            return bytes
        }
        func heal(_ backup: String) throws -> (code: String?, report: HealingReport?) {
            do {
                return (
                    nil,
                    try EmbeddedLog.heal(DiskVolume(scratch.path + "/b"), from: DiskVolume(scratch.path + "/" + backup))
                )
            } catch {
                return (error.code, nil)
            }
        }
        // Where they went on differently, the other's bytes are no help, sound as they are.
        let bytes = try rot(sound.count * 8 / 9)
        let (code, none) = try heal("second")
        #expect(code == "bad-backup" || none?.healed.isEmpty == true, "\(code ?? "") \(none.map { "\($0)" } ?? "")")
        #expect(try Data(contentsOf: URL(filePath: "\(scratch.path)/b/\(name)")) == bytes)
        // What both began with is the same in both, and the chain to this log's own end proves it.
        for backup in ["first", "second"] {
            _ = try rot(sound.count / 9)
            let report = try heal(backup).report
            #expect(report?.verification.isIntact == true && report?.verification.events == 140)
            #expect(try Data(contentsOf: URL(filePath: "\(scratch.path)/b/\(name)")) == sound)
        }
    }

    /// Indexes beside a partition's files that are gone or damaged are told, and built again.
    @Test func missingIndexesAreToldAndBuilt() throws {
        let log = try EmbeddedLogTests.open(scratch.path + "/a", segmentSize: 4000)
        try log.declare(TopicLayout(name: "t", partitions: 1))
        for id in 0..<100 {
            _ = try log.append(LogAppend(principal: "p", events: [("t", nil, EmbeddedLogTests.event("e\(id)"))]))
        }
        try log.maintain()
        #expect(try log.verify().rebuildable.isEmpty)
        log.close()
        let folder = scratch.path + "/a/t-0"
        let name = try #require(
            FileManager.default.contentsOfDirectory(atPath: folder).filter { $0.hasSuffix(".index") }.min())
        let path = URL(filePath: "\(folder)/\(name)")
        let whole = try Data(contentsOf: path)
        for damage in ["gone", "rotten"] {
            var bytes = whole
            bytes[20] ^= 4
            if damage == "gone" { try FileManager.default.removeItem(at: path) } else { try bytes.write(to: path) }
            let again = try EmbeddedLogTests.open(scratch.path + "/a")
            #expect(try again.verify().rebuildable == ["t-0/\(name)"] && again.verify().isIntact)
            try again.buildMissingIndexes()
            try again.maintain()
            #expect(
                try again.verify().rebuildable.isEmpty && again.inspect().recovery.rebuiltIndexes == ["t-0/\(name)"])
            #expect(try Data(contentsOf: path) == whole)
            again.close()
        }
    }

    @Test(arguments: ["files", "empty", "data"]) func whatIsNoBackupIsRefused(kind: String) throws {
        try FileManager.default.createDirectory(atPath: scratch.path + "/x", withIntermediateDirectories: true)
        try grow("a", 0..<2)
        if kind == "files" { try Data("kind: Topic".utf8).write(to: URL(filePath: scratch.path + "/x/w.yaml")) }
        if kind == "data" { try grow("x/log", 0..<2) }
        #expect(errorCode { _ = try restore("x", to: "y") } == "not-a-backup")
        #expect(!FileManager.default.fileExists(atPath: scratch.path + "/y/durable.mark"))
        let code = errorCode { _ = try backup("a", to: "x") }
        #expect(code == (kind == "empty" ? nil : "bad-backup"), "\(code ?? "")")
    }

    /// The mark knows how far the log once was: files that are gone, emptied or cut where an append ends are damage.
    @Test(arguments: ["gone", "emptied", "cut"]) func whatIsGoneIsDamage(how: String) throws {
        try grow("a", 0..<10)
        let path = scratch.path + "/a/00000000000000000000.wal"
        let whole = try Data(contentsOf: URL(filePath: path))
        switch how {
        case "gone": try FileManager.default.removeItem(atPath: path)
        case "emptied": try Data().write(to: URL(filePath: path))
        default:
            let (frames, _) = try EmbeddedLog.frames(
                of: "00000000000000000000.wal", on: DiskVolume(scratch.path + "/a"), from: 0, limit: 100)
            let last = try #require(frames.last)
            try whole.prefix(Int(last.at)).write(to: URL(filePath: path))
        }
        for name in try FileManager.default.contentsOfDirectory(atPath: scratch.path + "/a")
        where name.hasSuffix(".index") { try FileManager.default.removeItem(atPath: scratch.path + "/a/" + name) }
        var options = EmbeddedLog.Options()
        options.readOnly = true
        let log = try EmbeddedLog.open(scratch.path + "/a", options: options)
        let check = try log.verify()
        #expect(!check.isIntact && check.rewritten.isEmpty, "\(check.damaged) \(check.rewritten)")
        #expect(check.damaged.map(\.sequences) == [(how == "cut" ? 18 : 0)..<20], "\(check.damaged)")
        log.close()
    }
}
