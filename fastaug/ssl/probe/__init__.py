"""What a representation knows, measured with labels.

``features`` of a frozen encoder, kept in a ``cache`` · ``representations``: a checkpoint, random weights, log-mel
statistics · ``heads`` trained on them · ``supervised`` whole networks · ``protocols`` as published · ``label_shares``
few labels · ``scoring`` metrics and intervals · ``table`` of ``rows``, recorded in ``results``.
"""
