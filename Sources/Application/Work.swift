import ArgumentParser
import Base
import Foundation
import Node

/// What a node says of itself to the others that share a log with it.
struct SharingOptions: ParsableArguments {
    @Option(
        name: .long,
        help: "On Kafka: where other nodes reach this one (http://HOST:PORT); the address it listens on when absent.")
    var advertise: String?
    @Flag(
        name: .long,
        help: "On Kafka: keep no copy of other nodes' state; a task that comes is read from its changelog first.")
    var noCopies = false

    func validate() throws {
        guard let advertise else { return }
        guard let url = URL(string: advertise), url.scheme == "http", url.host != nil, url.path.isEmpty else {
            throw ValidationError("--advertise \(advertise): an address is http://HOST:PORT.")
        }
    }

    func enter(_ settings: inout NodeConfiguration) {
        settings.advertised = advertise
        settings.keepsCopies = !noCopies
    }
}

struct Work: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Fold a share of this program's streams beside the node of the same Kafka cluster.",
        discussion: """
            Start as many as there shall be, each with a data directory of its own: they share the streams' tasks with the node \
            that was started with `start`, and with each other. Whoever goes, also without a word, has its tasks taken over within \
            seconds. Any of them answers for any key. Exit code 1 where the node has failed.
            """)

    @OptionGroup var common: Common
    @Option(
        name: .long,
        help: "The Kafka cluster (HOST:PORT, more with commas); what the directory was made for when absent.")
    var kafka: String?
    @Option(name: .long, help: "File of librdkafka settings (name=value lines): TLS, SASL, timeouts.")
    var kafkaConfig: String?
    @Option(name: .long, help: "Address to listen on.") var host = "127.0.0.1"
    @Option(name: .long, help: "Port to listen on; 0 takes a free one.") var port = 0
    @Option(name: .long, help: "Seconds between checkpoints.") var checkpoint = 2.0
    @OptionGroup var sharing: SharingOptions

    func validate() throws {
        guard (0...65_535).contains(port) else {
            throw ValidationError("--port \(port): ports go from 0, which takes a free one, to 65535.")
        }
    }

    func run() async throws {
        try await reporting {
            var settings = NodeConfiguration(dataDirectory: common.data, platformTopics: home() + "/Topics")
            settings.isWorker = true
            settings.host = host
            settings.port = port
            settings.checkpointSeconds = checkpoint
            settings.kafka = kafka
            settings.kafkaSettings = kafkaConfig
            settings.streams = Headrace.streams.withLock { $0 }
            settings.announce = { FileHandle.standardError.write(Data(($0 + "\n").utf8)) }
            sharing.enter(&settings)
            let node = try Node(settings)
            let serving = try await Serving(node, settings)
            try node.start(at: serving.address)
            let stop = Signals.install()
            while !stop.withLock({ $0 }) { try await Task.sleep(for: .milliseconds(100)) }
            let failures = node.failures
            serving.end()
            node.stop()
            if !failures.isEmpty {
                throw NodeError("node-failed", failures.joined(separator: "; "), fault: .world)
            }
        }
    }
}
