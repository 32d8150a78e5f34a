import Base
import Foundation

/// Certificates, and doors in front of a broker that let nobody in without TLS (Tests/Contract/Python/tls_kafka_proxy.py), on
/// free ports.
final class TLSDoor: Sendable {
    private let script = projectDirectory + "/Tests/Contract/Python/tls_kafka_proxy.py"
    private let scratch: ScratchDirectory
    private let doors = Monitor<[Door]>([])

    init() throws {
        scratch = try ScratchDirectory()
        guard let python else { throw TestSupportError.noBroker }
        let made = try run(python, [script, "--make-certificates", scratch.path])
        guard made.status == 0 else { throw TestSupportError.noDoor(made.errors) }
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
        let door = try Door(arguments, notes: file("door-\(UUID().uuidString)"))
        doors.update { $0.append(door) }
        return door.port
    }
}
