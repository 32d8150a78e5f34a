import ArgumentParser
import Base
import BenchmarkBodies
import EventLog
import Foundation
import KafkaLog

/// One figure as the scripts print it.
struct Figure {
    let name: String
    let value: Double
    let unit: String

    func print() { Swift.print("{\"name\":\"\(name)\",\"value\":\(value.rounded(toPlaces: 4)),\"unit\":\"\(unit)\"}") }
}

extension Double {
    func rounded(toPlaces places: Int) -> Double {
        let scale = Foundation.pow(10, Double(places))
        return (self * scale).rounded() / scale
    }
}

@main
struct Bench: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "headrace-bench", abstract: "Measures parts of Headrace in process; one JSON object a line.",
        subcommands: [
            LogBench.self, KafkaBench.self, OpenBench.self, GrowBench.self, StreamBench.self, FeatureBench.self,
        ])
}

func payloads(_ path: String) throws -> [[UInt8]] {
    let text = try Data(contentsOf: URL(filePath: path))
    let lines = text.split(separator: 0x0A).map { [UInt8]($0) }
    guard lines.count > 100 else { throw ValidationError("\(path) has no events") }
    return lines
}

struct LogBench: AsyncParsableCommand {
    static let configuration = CommandConfiguration(commandName: "log", abstract: "Appends and scans.")

    @Option(help: "A file with one JSON event a line.")
    var events: String

    @Option(help: "A directory for the log; what is in it is lost.")
    var directory: String

    @Option(help: "Plain records to append.")
    var count = 6_000_000

    @Flag(help: "Append plain records and measure nothing else, for a profiler.")
    var plainOnly = false

    func run() async throws {
        let lines = try payloads(events)
        func fresh(_ name: String) throws -> EmbeddedLog {
            let path = directory + "/" + name
            try? FileManager.default.removeItem(atPath: path)
            return try EmbeddedLog.open(path)
        }
        var log = try fresh("plain")
        let plain = try LogBodies.appendPlain(log, payloads: lines, events: count)
        Figure(name: "log.append.plain", value: plain.perSecond, unit: "events/s").print()
        log.close()
        if plainOnly { return }
        // The same when the batches have 64 KiB on the disk instead of before LZ4, which makes about a quarter of them.
        log = try fresh("stored")
        let stored = try LogBodies.appendPlain(log, payloads: lines, events: count, batchBytes: 272 << 10)
        Figure(name: "log.append.plain.stored64k", value: stored.perSecond, unit: "events/s").print()
        log.close()
        try? FileManager.default.removeItem(atPath: directory + "/stored")
        log = try EmbeddedLog.open(directory + "/plain")
        try log.maintain()
        _ = try LogBodies.scan(log, LogBodies.topic)
        let before = allocations()
        let scan = try LogBodies.scan(log, LogBodies.topic)
        Figure(name: "log.scan", value: scan.result.perSecond, unit: "events/s").print()
        if let before, let after = allocations() {
            Figure(
                name: "log.scan.allocations", value: Double(after - before) / Double(scan.events), unit: "per event"
            ).print()
        }
        Figure(
            name: "log.scan.bytes", value: scan.result.perSecond * Double(scan.bytes) / Double(scan.events) / 1e9,
            unit: "GB/s"
        ).print()
        Figure(name: "log.write-amplification", value: log.statistics.writeAmplification, unit: "bytes per byte")
            .print()
        log.close()
        log = try fresh("events")
        let full = try LogBodies.appendEvents(log, payloads: lines, events: count / 3)
        Figure(name: "log.append.events", value: full.perSecond, unit: "events/s").print()
        log.close()
        log = try fresh("small")
        let small = try await LogBodies.manySmall(log, payloads: lines, each: 8000)
        Figure(name: "log.append.single", value: small.perSecond, unit: "events/s").print()
        Figure(name: "log.append.single.p99", value: small.p99, unit: "ms").print()
        log.close()
    }

    /// Allocations of this process so far, where the counting library is loaded before it.
    private func allocations() -> Int? {
        guard let symbol = dlsym(UnsafeMutableRawPointer(bitPattern: 0), "headrace_allocations") else { return nil }
        typealias Count = @convention(c) () -> Int
        return unsafeBitCast(symbol, to: Count.self)()
    }
}

struct GrowBench: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "grow", abstract: "Grows a log to a size, with ids, and leaves it or is killed.")

    @Option var directory: String
    @Option(help: "Gigabytes on disk.") var gigabytes = 20.0
    @Flag(help: "Do not close the log: the process ends as if killed.") var kill = false

    func run() throws {
        let log = try EmbeddedLog.open(directory)
        try log.declare(TopicLayout(name: "flights.events", partitions: 1))
        var random = SeededRandom(seed: 1)
        // Payloads that do not shrink, so that the disk fills soon.
        let lines = (0..<2000).map { _ in (0..<1024).map { _ in UInt8.random(in: 0...255, using: &random) } }
        var first = Int(log.statistics.events)
        while Double(log.statistics.bytesWritten) < gigabytes * 1e9 {
            let before = first
            first += 200_000
            _ = try LogBodies.appendEvents(log, payloads: lines, events: 200_000, from: before)
        }
        while log.statistics.waitingSegments > 1 { Thread.sleep(forTimeInterval: 0.2) }
        print("\(log.statistics.events) events")
        if kill { Foundation.exit(9) }
        log.close()
    }
}

struct OpenBench: ParsableCommand {
    static let configuration = CommandConfiguration(commandName: "open", abstract: "How long opening a log takes.")

    @Option var directory: String

    func run() throws {
        var log: EmbeddedLog?
        let elapsed = try LogBodies.seconds { log = try EmbeddedLog.open(directory) }
        Figure(name: "log.open", value: elapsed, unit: "s").print()
        Figure(name: "log.open.scanned", value: Double(log?.recovery.scannedBytes ?? 0), unit: "bytes").print()
        Foundation.exit(0)
    }
}

struct KafkaBench: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "kafka", abstract: "Produces to a broker and consumes from it again.")

    @Option(help: "A file with one JSON event a line.")
    var events: String

    @Option(help: "HOST:PORT of a broker with nothing in it.")
    var bootstrap: String

    @Option(help: "Plain records.")
    var count = 1_000_000

    @Option(help: "Batches under way.")
    var underWay = 4000

    func run() async throws {
        let lines = try payloads(events)
        let log = try KafkaLog.open(KafkaConfiguration(bootstrap: bootstrap))
        // As many records under way as the C program's client takes.
        let produced = try LogBodies.appendPlain(
            log, payloads: lines, events: count, producers: 1, underWay: underWay, encodes: false)
        Figure(name: "kafka.produce", value: produced.perSecond, unit: "events/s").print()
        let consumed = try LogBodies.consume(log, events: count)
        Figure(name: "kafka.consume", value: consumed.perSecond, unit: "events/s").print()
        log.close()
    }
}
