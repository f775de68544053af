// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

/// @title Who may receive which content list, for what, until when
/// @notice A publisher offers a content list for a product and version, grants it to receivers, and receivers
/// put on record that they have it. Everything hangs below the publisher's own account: nobody can take a
/// list's address before its publisher does, and a reader decides which publisher it asks about.
/// @dev No owner, no proxy, no ether. What is in which slot is part of the interface, because light clients
/// read it by storage proofs: see chain-lite/docs/contracts.md.
contract Authorisations {
    /// @notice What a list is for: two slots.
    struct Offer {
        /// The product: its name in ASCII filled with zeros, or the hash of a longer one.
        bytes32 product;
        /// Version of the product that the list brings.
        uint64 version;
        /// Unix time in seconds of the offer; zero if there is none.
        uint64 offeredAt;
    }

    /// @notice What a receiver may: one slot.
    struct Grant {
        /// Unix time in seconds until which, exclusively, the receiver may have the list; zero if it may not.
        uint64 until;
        /// How many downloads are on record.
        uint32 downloads;
        /// The account that speaks for the receiver on this chain; zero if none does.
        address account;
    }

    /// @notice A receiver in a call.
    struct Receiver {
        /// Its Ed25519 public key.
        bytes32 uid;
        /// The account that speaks for it on this chain; zero if none does.
        address account;
    }

    /// @notice Most receivers in one call.
    uint256 public constant RECEIVERS_MAX = 256;
    /// @notice Longest grant from now on. A time in milliseconds is refused by it.
    uint64 public constant GRANT_MAX = 3660 days;

    bytes32 private constant DOMAIN_TYPE =
        keccak256("EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)");
    bytes32 private constant DOMAIN_NAME = keccak256("ioex authorisations");
    bytes32 private constant DOMAIN_VERSION = keccak256("1");
    bytes32 private constant DOWNLOAD_TYPE =
        keccak256("Download(address publisher,bytes32 list,bytes32 uid,uint32 ordinal,uint64 deadline)");
    /// @dev Half of the order of secp256k1: of a signature's two forms only the lower one is taken.
    uint256 private constant S_MAX = 0x7FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF5D576E7357A4501DDFE92F46681B20A0;

    /// @notice What a publisher's list is for.
    mapping(address publisher => mapping(bytes32 list => Offer)) public offerOf;
    /// @notice What a receiver may, by publisher, list and UID.
    mapping(address publisher => mapping(bytes32 list => mapping(bytes32 uid => Grant))) public grantOf;

    event Offered(address indexed publisher, bytes32 indexed list, bytes32 indexed product, uint64 version);
    event Granted(
        address indexed publisher, bytes32 indexed list, bytes32 indexed uid, address account, uint64 until
    );
    event Extended(address indexed publisher, bytes32 indexed list, bytes32 indexed uid, uint64 until);
    event Revoked(address indexed publisher, bytes32 indexed list, bytes32 indexed uid);
    /// @notice A receiver has a list. `ordinal` counts its downloads from 1, `account` speaks for it, `sender`
    /// sent the transaction.
    event Downloaded(
        address indexed publisher,
        bytes32 indexed list,
        bytes32 indexed uid,
        uint32 ordinal,
        address account,
        address sender
    );

    error ZeroList();
    error ZeroUid();
    error AlreadyOffered(bytes32 list);
    error NotOffered(address publisher, bytes32 list);
    error ReceiverCount(uint256 count, uint256 max);
    error UntilOutOfRange(uint64 until, uint256 after_, uint256 atMost);
    error AlreadyGranted(bytes32 uid, uint64 until);
    error NotGranted(bytes32 uid);
    error NotLater(bytes32 uid, uint64 until);
    error Expired(bytes32 uid, uint64 until);
    error NotReceiver(bytes32 uid, address caller);
    error SignatureExpired(uint64 deadline);
    error SignatureMalformed();
    error SignatureNotReceivers(bytes32 uid, address signer);

    // ---- what a publisher does --------------------------------------------------------------------------

    /// @notice Says what a list is for, once: a list's address names its bytes, so neither changes.
    /// @param list the list's address, the BLAKE3 hash of its bytes.
    /// @param product the product's name in ASCII filled with zeros, or the hash of a longer one.
    /// @param version of the product that the list brings.
    function offer(bytes32 list, bytes32 product, uint64 version) external {
        require(list != 0, ZeroList());
        require(offerOf[msg.sender][list].offeredAt == 0, AlreadyOffered(list));
        offerOf[msg.sender][list] = Offer({product: product, version: version, offeredAt: uint64(block.timestamp)});
        emit Offered(msg.sender, list, product, version);
    }

    /// @notice Grants a list to receivers that have no grant for it, or one that is over.
    /// @param until Unix time in seconds, exclusive.
    function grant(bytes32 list, Receiver[] calldata receivers, uint64 until) external {
        require(offerOf[msg.sender][list].offeredAt != 0, NotOffered(msg.sender, list));
        _checkCount(receivers.length);
        _checkUntil(until);
        for (uint256 i = 0; i < receivers.length; ++i) {
            Receiver calldata receiver = receivers[i];
            require(receiver.uid != 0, ZeroUid());
            Grant storage granted = grantOf[msg.sender][list][receiver.uid];
            require(granted.until <= block.timestamp, AlreadyGranted(receiver.uid, granted.until));
            granted.until = until;
            granted.account = receiver.account;
            emit Granted(msg.sender, list, receiver.uid, receiver.account, until);
        }
    }

    /// @notice Moves the end of grants to a later time, also of those that are over. It never shortens one.
    /// @param until Unix time in seconds, exclusive.
    function extend(bytes32 list, bytes32[] calldata uids, uint64 until) external {
        _checkCount(uids.length);
        _checkUntil(until);
        for (uint256 i = 0; i < uids.length; ++i) {
            Grant storage granted = grantOf[msg.sender][list][uids[i]];
            require(granted.until != 0, NotGranted(uids[i]));
            require(until > granted.until, NotLater(uids[i], granted.until));
            granted.until = until;
            emit Extended(msg.sender, list, uids[i], until);
        }
    }

    /// @notice Ends grants at once.
    function revoke(bytes32 list, bytes32[] calldata uids) external {
        _checkCount(uids.length);
        for (uint256 i = 0; i < uids.length; ++i) {
            Grant storage granted = grantOf[msg.sender][list][uids[i]];
            require(granted.until != 0, NotGranted(uids[i]));
            // The count stays, so that a signature for an earlier download is never good for a later grant.
            granted.until = 0;
            emit Revoked(msg.sender, list, uids[i]);
        }
    }

    // ---- what a receiver does ---------------------------------------------------------------------------

    /// @notice Puts on record that a receiver has a list. The receiver's account calls it, under a grant that
    /// is not over.
    function recordDownload(address publisher, bytes32 list, bytes32 uid) external {
        Grant storage granted = _standing(publisher, list, uid);
        require(granted.account == msg.sender, NotReceiver(uid, msg.sender));
        _record(granted, publisher, list, uid);
    }

    /// @notice The same on the receiver's behalf: anybody may send what the receiver's account has signed.
    /// @param deadline last Unix second at which the signature is good.
    /// @param v 27 or 28.
    /// @param r first half of the signature.
    /// @param s second half of the signature, the lower of its two forms.
    function recordDownloadFor(
        address publisher,
        bytes32 list,
        bytes32 uid,
        uint64 deadline,
        uint8 v,
        bytes32 r,
        bytes32 s
    ) external {
        require(block.timestamp <= deadline, SignatureExpired(deadline));
        Grant storage granted = _standing(publisher, list, uid);
        bytes32 digest = downloadDigest(publisher, list, uid, granted.downloads + 1, deadline);
        require((v == 27 || v == 28) && uint256(s) <= S_MAX, SignatureMalformed());
        address signer = ecrecover(digest, v, r, s);
        // A receiver without an account has account zero, which is what a failed recovery gives.
        require(signer != address(0), SignatureMalformed());
        require(signer == granted.account, SignatureNotReceivers(uid, signer));
        _record(granted, publisher, list, uid);
    }

    /// @notice What a receiver's account signs (EIP-712) for its download number `ordinal`, counted from 1.
    function downloadDigest(address publisher, bytes32 list, bytes32 uid, uint32 ordinal, uint64 deadline)
        public
        view
        returns (bytes32)
    {
        bytes32 domain =
            keccak256(abi.encode(DOMAIN_TYPE, DOMAIN_NAME, DOMAIN_VERSION, block.chainid, address(this)));
        bytes32 message = keccak256(abi.encode(DOWNLOAD_TYPE, publisher, list, uid, ordinal, deadline));
        return keccak256(abi.encodePacked(hex"1901", domain, message));
    }

    // ---- what anybody reads -----------------------------------------------------------------------------

    /// @notice Until when, exclusively, a receiver may have a list; zero if it may not now.
    function authorisedUntil(address publisher, bytes32 list, bytes32 uid) external view returns (uint64) {
        uint64 until = grantOf[publisher][list][uid].until;
        return block.timestamp < until ? until : 0;
    }

    // ---- inside -----------------------------------------------------------------------------------------

    function _checkCount(uint256 count) private pure {
        require(count != 0 && count <= RECEIVERS_MAX, ReceiverCount(count, RECEIVERS_MAX));
    }

    function _checkUntil(uint64 until) private view {
        uint256 atMost = block.timestamp + GRANT_MAX;
        require(until > block.timestamp && until <= atMost, UntilOutOfRange(until, block.timestamp, atMost));
    }

    /// @dev The grant, if it was given and is not over.
    function _standing(address publisher, bytes32 list, bytes32 uid) private view returns (Grant storage granted) {
        granted = grantOf[publisher][list][uid];
        require(granted.until != 0, NotGranted(uid));
        require(block.timestamp < granted.until, Expired(uid, granted.until));
    }

    function _record(Grant storage granted, address publisher, bytes32 list, bytes32 uid) private {
        uint32 ordinal = granted.downloads + 1;
        granted.downloads = ordinal;
        emit Downloaded(publisher, list, uid, ordinal, granted.account, msg.sender);
    }
}
