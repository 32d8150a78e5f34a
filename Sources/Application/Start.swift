import API
import ArgumentParser
import Base
import Foundation
import HTTP
import Node

struct Start: AsyncParsableCommand {
    static let configuration = CommandConfiguration(abstract: "Start a node, on the embedded log or on Kafka.")

    @OptionGroup var common: Common
    @Option(name: .long, help: "Apply this workspace first.") var workspace: String?
    @Option(name: .long, help: "Run this connector (a JSON file); may be repeated.") var connector: [String] = []
    @Option(name: .long, help: "Address to listen on.") var host = "127.0.0.1"
    @Option(name: .long, help: "Port to listen on; 0 takes a free one.") var port = 8080
    @Option(name: .long, help: "Play history no further than this RFC 3339 time.") var until: String?
    @Option(name: .long, help: "Seconds between checkpoints.") var checkpoint = 2.0
    @Flag(name: .long, help: "Show progress until everything is folded, then print the report.") var play = false
    @Flag(name: .long, help: "Stop once everything is folded.") var exit = false
    @Option(name: .long, help: "Report to print after a play.") var report: String?
    @Option(name: .long, help: "Keep the log on this Kafka cluster (HOST:PORT, more with commas).") var kafka: String?
    @Option(name: .long, help: "File of librdkafka settings (name=value lines): TLS, SASL, timeouts.")
    var kafkaConfig: String?

    @OptionGroup var sharing: SharingOptions

    @Option(name: .long, help: "Folder of the keys of personal fields; 'keys' in the data directory when absent.")
    var keys: String?
    @Flag(name: .long, help: "Begin with new keys: gives up for good what was sealed under keys that are lost.")
    var newKeys = false

    func validate() throws {
        guard (0...65_535).contains(port) else {
            throw ValidationError("--port \(port): ports go from 0, which takes a free one, to 65535.")
        }
    }

    func run() async throws {
        try await reporting {
            var settings = NodeConfiguration(dataDirectory: common.data, platformTopics: home() + "/Topics")
            settings.workspace = workspace
            settings.connectors = connector
            settings.host = host
            settings.port = port
            guard until.map({ Instant($0) != nil }) ?? true else {
                throw NodeError("bad-time", "--until: '\(until ?? "")' is no RFC 3339 time")
            }
            settings.until = until
            settings.checkpointSeconds = checkpoint
            settings.kafka = kafka
            settings.kafkaSettings = kafkaConfig
            settings.keys = keys
            settings.newKeys = newKeys
            settings.streams = Headrace.streams.withLock { $0 }
            sharing.enter(&settings)
            settings.announce = { FileHandle.standardError.write(Data(($0 + "\n").utf8)) }
            let begun = Date()
            let node = try Node(settings)
            announce(node)
            let serving = try await Serving(node, settings)
            try node.start(at: serving.address)
            let stop = Signals.install()
            if play || exit { try await watch(node, begun, stop) }
            if !exit {
                // A failure stops a part, not the node: what still can be read is served, and readiness says what is wrong.
                while !stop.withLock({ $0 }) { try await Task.sleep(for: .milliseconds(100)) }
            }
            let failures = node.failures
            serving.end()
            node.stop()
            if !failures.isEmpty {
                throw NodeError("node-failed", failures.joined(separator: "; "), fault: .world)
            }
        }
    }

    private func announce(_ node: Node) {
        func say(_ text: String) { FileHandle.standardError.write(Data((text + "\n").utf8)) }
        for notice in node.notices { say(notice) }
        guard let recovery = node.embedded?.recovery else { return }
        if recovery.truncatedBytes > 0 {
            say("the log's torn tail of \(recovery.truncatedBytes) bytes was cut off (\(recovery.truncatedFile ?? ""))")
        }
        for range in recovery.damaged { say("the log is damaged: \(range); the rest is readable") }
        for index in recovery.rebuiltIndexes { say("rebuilt the index \(index)") }
    }

    private func watch(_ node: Node, _ begun: Date, _ stop: Monitor<Bool>) async throws {
        let bar = ProgressBar()
        while !stop.withLock({ $0 }), node.failures.isEmpty {
            try await Task.sleep(for: .milliseconds(100))
            bar.show(node, begun)
            if node.isSettled { break }
        }
        bar.finish()
        guard node.failures.isEmpty, !stop.withLock({ $0 }) else { return }
        let seconds = Date().timeIntervalSince(begun)
        if node.connectors.contains(where: { $0.status.played > 0 }) {
            try node.recordRun(
                seconds: seconds, started: Instant(milliseconds: Int64(begun.timeIntervalSince1970 * 1000)))
        } else {
            let held = "the log holds \(node.log.eventCount) events, definitions among them"
            print(node.connectors.isEmpty ? "no --connector, so nothing to play; \(held)" : "nothing new; \(held)")
        }
        for (name, status) in node.connectors where status.damagedRows + status.refused > 0 {
            print(
                "\(name): \(status.damagedRows) damaged rows and \(status.refused) refused events stand in headrace.dead-letters"
            )
        }
        if let report {
            let answer = try node.report(report)
            common.json ? Terminal.print(answer) : Terminal.report(answer)
            // A file or a pipe gets it now, not when the node ends.
            fflush(nil)
        }
    }
}

/// One line on standard error that shows how far a play is.
final class ProgressBar {
    private let interactive = isatty(2) == 1
    private var lastLine = Date.distantPast

    func show(_ node: Node, _ begun: Date) {
        let seconds = Date().timeIntervalSince(begun)
        let total = node.connectors.reduce(0) { $0 + $1.status.total }
        let fold = node.fold.status
        guard total > 0, interactive || Date().timeIntervalSince(lastLine) > 5 else { return }
        lastLine = Date()
        let share = min(1, Double(fold.folded) / Double(total))
        let filled = Int(share * 30)
        let bar = String(repeating: "█", count: filled) + String(repeating: "░", count: 30 - filled)
        let rate = Double(node.log.eventCount) / max(seconds, 0.001)
        let text = String(
            format: "%@ %3.0f%%  %@  %8.0f events/s  %.0f s", bar, share * 100,
            fold.now == .distantPast ? "reading…  " : fold.now.date, rate, seconds)
        FileHandle.standardError.write(Data((interactive ? "\r\(text)\u{1B}[K" : text + "\n").utf8))
    }

    func finish() { if interactive { FileHandle.standardError.write(Data("\n".utf8)) } }
}
