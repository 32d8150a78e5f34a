import ArgumentParser
import Base
import BenchmarkBodies
import EventLog
import Foundation

struct FeatureBench: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "features", abstract: "Point-in-time joins, datasets, reads in process, chunks.")

    @Option(help: "A file with one JSON event a line.")
    var events: String

    @Option(help: "A directory for logs and chunks; what is in it is lost.")
    var directory: String

    @Option(help: "A data directory in which the flights were played, for datasets from the log.")
    var data: String?

    @Option(help: "The platform's topics.")
    var topics = "Topics"

    @Option(help: "Events of the backfill.")
    var count = 2_000_000

    func run() throws {
        let lines = try payloads(events)
        try? FileManager.default.removeItem(atPath: directory)
        try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: true)
        for round in 1...3 {
            for (name, features) in [
                ("join.windows", ["origin_departures", "carrier_departures"]), ("join.latest", ["latest:delay"]),
            ] {
                let join = try FeatureBodies.join(lines, features: features)
                Figure(name: name, value: join.perSecond, unit: "rows/s").print()
            }
            if let data {
                let request = JSON.object([
                    "name": .string("bench-\(round)"), "service": "departure_delay", "labels": "flights.departed",
                ])
                let dataset = try FeatureBodies.dataset(data, topics: topics, request: request)
                Figure(name: "dataset.from-log", value: dataset.perSecond, unit: "rows/s").print()
            }
            var noise = [UInt8](repeating: 0, count: 256 << 20)
            var random = SeededRandom(seed: UInt64(round))
            noise.withUnsafeMutableBytes { raw in
                for at in stride(from: 0, to: raw.count, by: 8) {
                    raw.storeBytes(of: random.next(), toByteOffset: at, as: UInt64.self)
                }
            }
            Figure(name: "chunk.hash", value: FeatureBodies.chunk(noise).perSecond / 1e9, unit: "GB/s").print()
            let share = try FeatureBodies.newVersion("\(directory)/chunks-\(round)", rows: 1_000_000, changed: 10_000)
            Figure(name: "chunk.new-version", value: share * 100, unit: "%").print()
        }
        let log = try EmbeddedLog.open(directory + "/log")
        defer { log.close() }
        try FoldBodies.fill(log, payloads: lines, events: count, partitions: 1)
        try log.maintain()
        for _ in 1...3 {
            Figure(name: "view.backfill", value: try FeatureBodies.backfill(log).perSecond, unit: "events/s").print()
            let read = try FeatureBodies.read(lines, reads: 200_000, log: log)
            Figure(name: "online.read", value: read.microseconds, unit: "us").print()
        }
    }
}
