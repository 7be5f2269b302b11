"""The command line, ``python -m fastnn``; `fastnn.cli.main` is where it begins.

==============  ====================================================================
`options`       what may be given, and what holds where nothing is given
`training`      the command ``train``; `prediction`: ``predict``; `information`: ``info``
`data`          the digits, .npz files and folders of MNIST's files, which `idx` reads
`augment`       images moved at random
`models`        the networks as values that a file can carry
`modelfile`     a trained network, and what prediction needs beside it, as one file
`report`        history.csv and loss.png
`errors`        what ends as one sentence on stderr
==============  ====================================================================
"""
