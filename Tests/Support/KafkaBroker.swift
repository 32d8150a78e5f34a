import Base
import Foundation
import KafkaLog

/// A real broker (noida-db, one binary that speaks Kafka's protocol) on a free port, in a folder of its own, stopped by
/// its process id. Sendable because only `process` changes, under its monitor's lock.
final class KafkaBroker: @unchecked Sendable {
    private let process = Monitor<Process?>(nil)
    private let scratch: ScratchDirectory
    let port: Int

    /// The broker's own executable, where ./test installed it.
    static let executable: String? = {
        let root = projectDirectory + "/.cache/venv/lib"
        for name in (try? FileManager.default.contentsOfDirectory(atPath: root)) ?? [] {
            let path = "\(root)/\(name)/site-packages/noida_db/noida-db"
            if FileManager.default.isExecutableFile(atPath: path) { return path }
        }
        return nil
    }()

    /// Where it is reached, by itself or through the door that stands before it.
    var address: String { "127.0.0.1:\(door?.port ?? port)" }
    /// Tells readers of aborted transactions as Apache Kafka does (Tests/Contract/Python/exact_kafka_proxy.py).
    private let door: Door?

    var configuration: KafkaConfiguration {
        var configuration = KafkaConfiguration(bootstrap: address)
        configuration.patience = 20
        return configuration
    }

    /// - Parameter isExact: reached through a door, for tests in which transactions are aborted more than once: noida-db names
    ///   aborted transactions that ended before what a reader asks for, so that readers drop what was committed since.
    init(isExact: Bool = false) throws {
        scratch = try ScratchDirectory()
        port = try KafkaBroker.freePort()
        let script = projectDirectory + "/Tests/Contract/Python/exact_kafka_proxy.py"
        door =
            isExact ? try Door([script, "--upstream", "127.0.0.1:\(port)"], notes: scratch.path + "/door") : nil
        try start()
    }

    deinit { stop() }

    func start() throws {
        guard let executable = KafkaBroker.executable, let python else { throw TestSupportError.noBroker }
        let made = Process()
        // What Foundation's Process starts has SIGTERM blocked; the broker needs it, or it ends without its last writes.
        made.executableURL = URL(filePath: python)
        made.arguments = [
            "-c",
            "import os, signal, sys; signal.pthread_sigmask(signal.SIG_SETMASK, []); os.execv(sys.argv[1], sys.argv[1:])",
            executable, "start", "--only", "kafka", "--kafka-port", "\(port)", "--data-dir", scratch.path + "/data",
        ]
        made.standardOutput = FileHandle.nullDevice
        made.standardError = FileHandle.nullDevice
        try made.run()
        process.withLock { $0 = made }
        for _ in 0..<400 {
            if KafkaBroker.answers(port) { return }
            Thread.sleep(forTimeInterval: 0.025)
        }
        throw TestSupportError.noBroker
    }

    /// SIGTERM, after which it has everything on disk. A killed one may lose what it acknowledged in the last second.
    func stop() {
        process.withLock { process in
            guard let running = process else { return }
            Foundation.kill(running.processIdentifier, SIGTERM)
            // Neither waitUntilExit nor isRunning: asked from another thread than the one that ran it, both may wait on.
            for _ in 0..<500 where KafkaBroker.answers(port) { Thread.sleep(forTimeInterval: 0.01) }
            process = nil
        }
    }

    private static func socket(_ body: (Int32, UnsafePointer<sockaddr>, socklen_t) -> Bool, port: Int) -> Bool {
        let descriptor = Foundation.socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        defer { close(descriptor) }
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_port = UInt16(port).bigEndian
        address.sin_addr.s_addr = UInt32(0x7F00_0001).bigEndian
        return withUnsafePointer(to: &address) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                body(descriptor, $0, socklen_t(MemoryLayout<sockaddr_in>.size))
            }
        }
    }

    private static func answers(_ port: Int) -> Bool { socket({ connect($0, $1, $2) == 0 }, port: port) }

    static func freePort() throws -> Int {
        var port = 0
        _ = socket(
            { descriptor, address, length in
                guard bind(descriptor, address, length) == 0 else { return false }
                var bound = sockaddr_in()
                var size = socklen_t(MemoryLayout<sockaddr_in>.size)
                let found = withUnsafeMutablePointer(to: &bound) {
                    $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { getsockname(descriptor, $0, &size) }
                }
                port = Int(UInt16(bigEndian: bound.sin_port))
                return found == 0
            }, port: 0)
        guard port > 0 else { throw TestSupportError.noBroker }
        return port
    }
}

enum TestSupportError: Error {
    case noBroker
    case noDoor(String)
}
