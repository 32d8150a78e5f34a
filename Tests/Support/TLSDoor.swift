import Base
import Foundation

/// Certificates, and doors in front of a broker that let nobody in without TLS (Tests/Contract/Python/tls_kafka_proxy.py), on
/// free ports, stopped by their process ids. Sendable because only the list of processes changes, under its monitor's lock.
final class TLSDoor: @unchecked Sendable {
    private let script = projectDirectory + "/Tests/Contract/Python/tls_kafka_proxy.py"
    private let scratch: ScratchDirectory
    private let processes = Monitor<[Process]>([])

    init() throws {
        scratch = try ScratchDirectory()
        guard let python else { throw TestSupportError.noBroker }
        let made = try run(python, [script, "--make-certificates", scratch.path])
        guard made.status == 0 else { throw TestSupportError.noDoor(made.errors) }
    }

    deinit {
        processes.withLock { list in
            for process in list { Foundation.kill(process.processIdentifier, SIGTERM) }
        }
    }

    /// The path of a file that was made: ca.pem, client.pem, client.key, other-ca.pem, …
    func file(_ name: String) -> String { scratch.path + "/" + name }

    /// Opens a door.
    /// - Parameters:
    ///   - password: of the user `node`, who must say it; nil asks for none.
    ///   - asksForCertificate: of our authority.
    /// - Returns: its port.
    func open(to broker: String, password: String? = nil, asksForCertificate: Bool = false) throws -> Int {
        var arguments = [
            script, "--upstream", broker, "--cert", file("server.pem"), "--key", file("server.key"),
        ]
        if let password {
            try Data(password.utf8).write(to: URL(filePath: file("password")))
            arguments += ["--user", "node", "--password-file", file("password")]
        }
        if asksForCertificate { arguments += ["--client-ca", file("ca.pem")] }
        let said = file("door-\(UUID().uuidString)")
        _ = FileManager.default.createFile(atPath: said, contents: nil)
        let process = Process()
        process.executableURL = python.map { URL(filePath: $0) }
        process.arguments = arguments
        process.standardOutput = try FileHandle(forWritingTo: URL(filePath: said))
        process.standardError = FileHandle.nullDevice
        try process.run()
        processes.withLock { $0.append(process) }
        for _ in 0..<400 {
            let words = (try? String(contentsOfFile: said, encoding: .utf8))?.split(whereSeparator: \.isWhitespace)
            if let words, words.count == 2, words[0] == "ready", let port = Int(words[1]) { return port }
            Thread.sleep(forTimeInterval: 0.025)
        }
        throw TestSupportError.noDoor("it did not say its port")
    }
}
