import numpy as np, xpopt, pytest
@pytest.mark.parametrize("cls",[xpopt.SGD,xpopt.AdaGrad,xpopt.RMSProp,xpopt.Adam])
@pytest.mark.parametrize("clip",[None,.5])
def test_it(backend, cls, clip):
    for d in backend.dtypes:
        o=cls(lr=.1,clip_norm=clip); W=backend.array([1.,2,3],d); g=backend.array([1.,-1,3],d)
        for i in range(3):
            W=o.update(W,g,"W"); o.step()
        assert W.dtype==backend.dtype(d)
        print(d, backend.numpy(W))
        o.copy().update(W,g,"W")
        if backend.mutable:
            W=backend.writable([1.,2,3],d)
            assert o.update_all({"W":W,"b":backend.array(1.0,d)},{"W":W,"b":None})["W"] is not W
            assert o.update_all([W],[W],out=[W])[0] is W
