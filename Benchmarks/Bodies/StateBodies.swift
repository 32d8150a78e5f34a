import Base
import EventLog
import Foundation
import StreamExamples
import Streams

/// How a fold with very many keys is kept: its checkpoint while it goes on, and its start.
package enum StateBodies {
    package struct Outcome {
        /// Events that the checkpoint had folded when it began, and that the fold which began with it knew of.
        package let folded: Int64
        package let resumed: Int64
        /// From its beginning until it was on the disk.
        package let seconds: Double
        /// The longest time in which no event was folded meanwhile.
        package let stall: Double
        /// Until a fold that begins with this state could fold on.
        package let restart: Double
    }

    /// Departures over the last hour and day under the keys of their topic.
    @Sendable package static func keyedDays() -> StreamBuilder {
        let flights = StreamBuilder("keyed-days", runs: .byPartition)
        flights.stream("flights.departed", Departure.self).keyedByEvent()
            .windowed(by: .sliding(milliseconds: 3_600_000))
            .measure(
                .count("departures"), .of(.mean, "delay") { $0.delay }, .of(.max, "worst") { $0.delay },
                .count("dayDepartures").over(milliseconds: 86_400_000),
                .of(.mean, "dayDelay") { $0.delay }.over(milliseconds: 86_400_000),
                .of(.max, "dayWorst") { $0.delay }.over(milliseconds: 86_400_000)
            )
            .to("keyed.daily", type: "day")
        return flights
    }

    /// Folds everything with so much memory for the state.
    /// - Returns: events, and so many a second, the most that the state took in memory, and what is on the disk in the end, in bytes.
    package static func foldWithin(
        _ log: any EventLog, stateDirectory: String, memory: Int
    ) throws -> (folded: Int64, perSecond: Double, resident: Int, stored: Int) {
        try FileManager.default.createDirectory(atPath: stateDirectory, withIntermediateDirectories: true)
        let path = stateDirectory + "/state.sqlite"
        let runner = try TopologyRunner(
            topology: Topology(name: "keys", stages: [keyedDays().build()], answers: [], attachments: []),
            derived: [], log: log, database: try StateDatabase(path: path, memory: memory), sink: Sink())
        defer { runner.end() }
        var most = 0
        let seconds = try LogBodies.seconds {
            while try runner.runSlice() {
                most = max(most, runner.residentBytes)
                if runner.isCheckpointing {
                    try runner.advanceCheckpoint()
                } else if runner.needsCheckpoint {
                    try runner.beginCheckpoint()
                }
            }
            try runner.checkpoint()
        }
        let size = try FileManager.default.attributesOfItem(atPath: path)[.size] as? Int
        return (runner.folded, Double(runner.folded) / seconds, most, size ?? 0)
    }

    private final class Sink: DerivedSink {
        func take(_ event: DerivedEvent) {}
        func sliceEnded(_ consumed: () -> [TopicPartition: Int64]) {}
        func flush(_ consumed: () -> [TopicPartition: Int64]) {}
    }

    /// - Parameters:
    ///   - log: holds departures in one partition, each key once and then again.
    ///   - keys: after so many events the checkpoint begins, with a dirty key for each.
    package static func checkpoint(_ log: any EventLog, stateDirectory: String, keys: Int) throws -> Outcome {
        try FileManager.default.createDirectory(atPath: stateDirectory, withIntermediateDirectories: true)
        func runner() throws -> TopologyRunner {
            try TopologyRunner(
                topology: Topology(
                    name: "keys", stages: [keyedDays().build()], answers: [], attachments: []),
                derived: [], log: log, database: try StateDatabase(path: stateDirectory + "/state.sqlite"),
                sink: Sink())
        }
        let first = try runner()
        while first.folded < keys, try first.runSlice() {}
        let folded = first.folded
        var stall = 0.0
        var done = false
        let seconds = try LogBodies.seconds {
            stall = try LogBodies.seconds { try first.beginCheckpoint() }
            while !done {
                let pause = try LogBodies.seconds { try first.advanceCheckpoint() }
                stall = max(stall, pause)
                done = !first.isCheckpointing
                // Nothing left to fold: it only waits for the disk.
                if !done, try !first.runSlice() { Thread.sleep(forTimeInterval: 0.001) }
            }
        }
        var resumed: Int64 = 0
        let restart = try LogBodies.seconds {
            let next = try runner()
            resumed = next.folded
            _ = try next.runSlice()
        }
        return Outcome(folded: folded, resumed: resumed, seconds: seconds, stall: stall, restart: restart)
    }
}
